"""Which run to continue, and whether the configuration allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dl_course.errors import ConfigError
from dl_course.training import runs
from dl_course.training.checkpoints import PREVIOUS, RESUME, load_checkpoint, steps_and_epochs
from dl_course.training.tensorboard import flat

VIEWS = ("progress", "graph", "histograms", "images", "confusion", "misclassified", "views_every")
MAY_CHANGE = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "data.root",
    "data.path",
    "threads",
    "logger",
    *(f"callbacks.{name}" for name in VIEWS),
)
"""What may differ between a run and its continuation; anything else would make it another experiment."""


@dataclass(frozen=True)
class Continuation:
    """The run to continue (None: a new one), the configuration to use, the checkpoint to go on from (None: from the
    beginning), and whether the run is finished and left as it is."""

    run: Path | None
    config: DictConfig
    checkpoint: Path | None = None
    finished: bool = False


def continued(config: DictConfig, overrides: Sequence[str] | None = None) -> Continuation:
    """The run that `config.resume` names and the configuration to continue it with.

    The configuration is the run's own; from `config` come only the keys in `MAY_CHANGE`. overrides: the words that the
    user typed, to compare just what they name (`dl-course train resume=<run>` need not repeat the rest); without them
    every key is compared. Raises ConfigError with the differing keys, or if the run is longer already than it shall be.
    """
    if not config.get("resume"):
        return Continuation(None, config)
    run = runs.latest(config.experiment.name) if config.resume == "latest" else Path(str(config.resume))
    checkpoint = next((run / name for name in (RESUME, PREVIOUS) if (run / name).is_file()), None)
    if run.is_file():  # a checkpoint itself, such as the older one where the newest is damaged
        run, checkpoint = run.parent, run
    state = load_checkpoint(checkpoint) if checkpoint is not None else None
    stored = _stored(run, checkpoint, state)
    if stored is None:
        if config.resume == "latest":
            return Continuation(run, config)  # stopped before it had written anything: start it again, in its folder
        raise ConfigError(f"resume={config.resume}: not a run folder (no {runs.CONFIG} and no checkpoint in it)")
    if not isinstance(stored.get("trainer"), DictConfig):
        raise ConfigError(f"resume={run}: its configuration has no trainer")
    wanted, had = _flat(config), _flat(stored)
    touched = set(wanted) | set(had)
    typed = None
    if overrides is not None:
        typed = [override.lstrip("+~").split("=")[0].split("@")[0].replace("/", ".") for override in overrides]
        touched = {"experiment.name" if "experiment" in typed else "", *(key for key in touched if _under(key, typed))}
    different = sorted(
        key
        for key in touched
        if wanted.get(key) != had.get(key)
        and key != "resume"
        and not _under(key, MAY_CHANGE)
        # A size that is read from the data is open (null) until the data has been seen.
        and not (wanted.get(key) is None and key.split(".")[0] in ("data", "model"))
        and not (key.startswith("experiment.") and key != "experiment.name")
    )
    if different:
        shown = ", ".join(f"{key}={wanted.get(key)} (was {had.get(key)})" for key in different[:4])
        more = f" and {len(different) - 4} more" if len(different) > 4 else ""
        raise ConfigError(
            f"resume={run}: the run has another configuration: {shown}{more}\n"
            f"only {', '.join(MAY_CHANGE[:5])} and what is logged may change; "
            f"init_from={run} starts a new run from its weights"
        )
    limits = ("trainer.max_epochs", "trainer.max_steps")
    before = [OmegaConf.select(stored, limit) for limit in limits]
    for key in MAY_CHANGE:
        named = typed is None or any(_under(word, [key]) for word in typed)  # trainer=cpu leaves the run's max_epochs
        if named and any(_under(flat_key, [key]) for flat_key in wanted):
            OmegaConf.update(stored, key, OmegaConf.select(config, key), merge=False, force_add=True)
    prolonged = before != [OmegaConf.select(stored, limit) for limit in limits]
    if state is not None:
        _refuse_too_short(run, stored, state)
    return Continuation(run, stored, checkpoint, finished=runs.is_finished(run) and not prolonged)


def _refuse_too_short(run: Path, config: DictConfig, state: Mapping[str, Any]) -> None:
    """Raise ConfigError if the run is beyond its limits already."""
    for name, done in zip(("max_steps", "max_epochs"), steps_and_epochs(state)):
        limit = config.trainer.get(name)
        if isinstance(limit, int) and limit < done:
            raise ConfigError(f"resume={run}: trainer.{name}={limit}, but the run has {done} {name[4:]} already")


def _under(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _flat(config: DictConfig) -> dict[str, Any]:
    """The configuration as {"optimizer.lr": 0.001, …}, references resolved."""
    try:
        container = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(container, dict)
    return flat({str(key): value for key, value in container.items()})


def _stored(run: Path, checkpoint: Path | None, state: Mapping[str, Any] | None) -> DictConfig | None:
    """The configuration of a run: from a checkpoint, or from its config.yaml if it was stopped before the first one."""
    if state is not None:
        if state["dl_course"]["kind"] != "resume":
            raise ConfigError(
                f"resume={checkpoint}: holds weights only; init_from={checkpoint} starts a new run from them"
            )
        return DictConfig(state["config"])
    if (run / runs.CONFIG).is_file():
        try:
            loaded = OmegaConf.load(run / runs.CONFIG)
        except (OSError, ValueError, YAMLError) as error:
            raise ConfigError(f"{run / runs.CONFIG} cannot be read: {str(error).splitlines()[0]}") from error
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"{run / runs.CONFIG}: expected a mapping, not a list")
        return loaded
    return None
