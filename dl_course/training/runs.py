"""Run folders: where a run's files lie, how a new one is named, how an old one is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dl_course.errors import ConfigError, suggest
from dl_course.training.checkpoints import BEST, PREVIOUS, RESUME, refuse_url

ROOT = Path("runs")
CONFIG, METRICS, LOG = "config.yaml", "metrics.json", "train.log"
_SHARED = "DL_COURSE_RUN_FOLDER"


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes: the only one, or rank 0 of a distributed run."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def new_folder(experiment: str, seed: int) -> Path:
    """Create `runs/<experiment>/<YYYYmmdd-HHMMSS>-<seed>`; a second run in the same second gets `-2` behind it.

    The further processes of a distributed run (`strategy=ddp` starts the command again in each) share the first one's.
    """
    if not is_first_process() and _SHARED in os.environ:
        return Path(os.environ[_SHARED])
    parent = ROOT / experiment
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    for attempt in range(1, 1000):
        folder = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            folder.mkdir(parents=True)
            os.environ[_SHARED] = str(folder.resolve())
            return folder
        except FileExistsError:
            continue
    raise ConfigError(f"{parent}/{stem}: a thousand runs in one second")


def latest(experiment: str) -> Path:
    """The newest run folder of an experiment. Raises ConfigError where there is none."""
    runs = [folder for folder in (ROOT / experiment).glob("*") if folder.is_dir()]
    if not runs:
        known = sorted(p.name for p in ROOT.glob("*") if p.is_dir()) if ROOT.is_dir() else []
        raise ConfigError(f"resume=latest: no run of {experiment} under {ROOT}/{suggest(experiment, known)}")
    return max(runs, key=lambda folder: (folder.stat().st_ctime_ns, folder.name))


def find_checkpoint(run_or_checkpoint: str | Path) -> Path:
    """The file to load: a checkpoint itself, or the best one of a run folder (its newest state if it has no best)."""
    refuse_url(run_or_checkpoint)
    path = Path(run_or_checkpoint)
    if not path.is_dir():
        if not path.exists():
            siblings = [str(p) for p in path.parent.glob("*")] if path.parent.is_dir() else []
            raise ConfigError(f"{path}: no such run folder or checkpoint{suggest(str(path), siblings)}")
        return path
    for name in (BEST, RESUME, PREVIOUS):
        if (path / name).is_file():
            return path / name
    raise ConfigError(f"{path}: no checkpoint in this folder (expected {BEST} or {RESUME})")


def is_finished(folder: Path) -> bool:
    """A run is finished when its metrics were written: that is its last act."""
    return (folder / METRICS).is_file()


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote them."""
    if is_first_process():
        for temporary in folder.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)


def write_metrics(folder: Path, values: Mapping[str, Any]) -> None:
    """Write metrics.json, the last act of a run."""
    write_text(folder / METRICS, json.dumps(values, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Versions, git commit and command: what one needs to know to repeat a run."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("dl-course", "torch", "torchvision", "lightning", "hydra-core", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv and sys.argv[0] else "python"
    return {"versions": versions, "git": _git_commit(), "command": command}


def _git_commit() -> str | None:
    """The commit of the checkout that this package is imported from; None for an installed wheel."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics of a finished run, without the description of its environment."""
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return {key: value for key, value in metrics.items() if key != "run"}


def let_events_follow(folder: Path) -> None:
    """Wait, for a second at most, until a new event file is named after those of the run that is continued.

    TensorBoard reads the files of a run in the order of their names, which hold the second in which each was begun; in
    the wrong order, what an interrupted run had begun with would replace what its continuation draws.
    """
    begun = [int(file.name.split(".")[3]) for file in folder.glob("events.out.tfevents.*")]
    while begun and int(time.time()) <= max(begun) < time.time() + 2:
        time.sleep(0.02)
