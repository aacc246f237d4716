"""Where the configs lie, and the experiments they offer. Reads YAML and imports little: `dl-course list` is quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent

CONFIGS: Path = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""The folder of the shipped configs: inside the package when installed from a wheel, beside it in a checkout."""


@dataclass(frozen=True)
class Experiment:
    """One experiment file, described.

    `source` says where its data comes from: "embedded" (nothing to download), "benchmark" (a public data set) or
    "yours" (a file or folder of the user's). `reaches` maps metric tags to the value that the shipped settings
    reach, `minutes` is the wall time on two idle CPU cores.
    """

    name: str
    topic: str
    about: str
    model: str
    data: str
    source: str
    reaches: dict[str, float]
    minutes: float

    def matches(self, word: str) -> bool:
        """Whether any of the descriptions contains the word, in upper or lower case."""
        return word.lower() in " ".join(map(str, asdict(self).values())).lower()


def experiment_names(folder: Path = CONFIGS) -> list[str]:
    """The names that `experiment=` accepts."""
    return sorted(path.stem for path in (folder / "experiment").glob("*.yaml"))


def experiments(*words: str) -> list[Experiment]:
    """The shipped experiments that match all words, by topic and then by name."""
    found = [_read(CONFIGS / "experiment" / f"{name}.yaml") for name in experiment_names()]
    return sorted((e for e in found if all(map(e.matches, words))), key=lambda e: (e.topic, e.name))


def _read(path: Path) -> Experiment:
    import yaml

    content: dict[str, Any] = yaml.load(
        path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    about: dict[str, Any] = content["experiment"]
    choices = {
        key: value for entry in content.get("defaults", []) if isinstance(entry, dict) for key, value in entry.items()
    }
    model = content["model"]
    network = model.get("net", model)
    return Experiment(
        name=path.stem,
        topic=about["topic"],
        about=about["about"],
        model=network["_target_"].rpartition(".")[2],
        data=choices["override /data"],
        source=about["data"],
        reaches=about.get("reaches") or {},
        minutes=about["minutes"],
    )
