"""`dl-course train` in processes of their own, which a signal strikes at a chosen point of the program.

They are forked from a server that has imported everything once: a run takes about a second.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dl_course.cli import main
from dl_course.training import Supervised, checkpoints, load_checkpoint

IMPORTED_LATER = (
    "dl_course.launch", "dl_course.train", "dl_course.data", "dl_course.mlp", "dl_course.optim", "dl_course.regression",
    "rich.table", "sklearn.datasets", "sklearn.model_selection", "torch.utils.tensorboard",
)  # fmt: skip

Blow = tuple[str, int, int]
"""A place in the program, which visit to it (the first is 1), and the signal that is sent there. Place "fill": at that
training step, all but so many bytes of the disk are taken."""

# -- for a test --------------------------------------------------------------------------------------------------------


def start(folder: Path, words: Sequence[str], *blows: Blow, user: int | None = None) -> Any:
    """Start `dl-course train experiment=<words>` in `folder`; returns the process. What it prints is in output.txt.

    user: the number of the user to become when the model is built, before there is a run folder; from then on nothing
    of the installation is read, which that user may not be allowed to.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, *IMPORTED_LATER])
    folder.mkdir(parents=True, exist_ok=True)
    process = server.Process(target=_run, args=(folder, list(words), blows, user))
    process.start()
    return process


def ended(process: Any) -> int:
    """The exit code of a process that must end by itself: minus the signal if one killed it."""
    process.join(100)
    assert process.exitcode is not None, "the program hangs"
    return process.exitcode


def said(folder: Path) -> str:
    """What the programs that ran in a folder have printed."""
    return (folder / "output.txt").read_text()


def run_in(folder: Path) -> Path:
    """The one run folder of a working folder."""
    (run,) = (folder / "runs").glob("*/*")
    return run


def members(group: int) -> list[int]:
    """The living processes of a process group: a program and its workers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # gone
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def outcome(folder: Path) -> dict[str, Any]:
    """All that two runs are compared by: weights, metrics, curves, and the names of the files."""
    run = run_in(folder)
    metrics = json.loads((run / "metrics.json").read_text())
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return {
        "weights": {name: digest(run / name) for name in ("best.ckpt", "resume.ckpt")},
        "metrics": {key: value for key, value in metrics.items() if "/" in key or key in ("steps", "epochs")},
        "curves": curves,
        "files": {path.name for path in run.iterdir() if "tfevents" not in path.name},
    }


def digest(path: Path) -> str:
    """The SHA-256 of a checkpoint's weights."""
    state = load_checkpoint(path)["state_dict"]
    return hashlib.sha256(b"".join(name.encode() + state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def fill(disk: Path, leave: int) -> None:
    """Leave so many bytes of a disk free."""
    stat = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\0" * max(0, stat.f_bavail * stat.f_frsize - leave))


# -- in the process ----------------------------------------------------------------------------------------------------


def _run(folder: Path, words: list[str], blows: Sequence[Blow], user: int | None) -> None:
    os.setpgid(0, 0)  # its worker processes are those of its group
    os.chdir(folder)
    with open("output.txt", "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if user is not None:
        _become(user)
    for blow in blows:
        _plant(*blow)
    os.environ.pop("DL_COURSE_QUIET", None)
    experiment, *overrides = words
    sys.exit(main(["train", f"experiment={experiment}", "callbacks.progress=false", *overrides]))


def _become(user: int) -> None:
    train = importlib.import_module("dl_course.train")
    original = train.build_model

    def build_model(config: Any) -> Any:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        return original(config)

    train.build_model = build_model  # pyright: ignore[reportAttributeAccessIssue]


def _plant(place: str, visit: int, number: int) -> None:
    """Send the program a signal when it comes to `place` for the visit-th time."""
    visits = 0

    def arrived() -> bool:
        nonlocal visits
        visits += 1
        return visits == visit

    def strike() -> None:
        if place == "fill":
            return fill(Path.cwd(), leave=number)
        Path("members.txt").write_text(str(len(members(os.getpid()))))
        return os.kill(os.getpid(), number)

    def striking(owner: Any, name: str, after: bool = False, of: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(owner, name)

        def struck(*arguments: Any, **options: Any) -> Any:
            here = of(*arguments) and arrived()
            if here and not after:
                strike()
            result = original(*arguments, **options)
            if here and after:
                strike()
            return result

        setattr(owner, name, struck)

    def half_written(content: Any, file: Any) -> None:
        buffer = io.BytesIO()
        save(content, buffer)
        half = buffer.tell() // 2
        file.write(buffer.getvalue()[:half])
        if arrived():
            file.flush()
            strike()
        file.write(buffer.getvalue()[half:])

    save = torch.save
    if place == "within a write":
        checkpoints.torch.save = half_written
    elif place == "metrics":  # metrics.json is written, but has not its name yet
        striking(os, "replace", of=lambda _, target: Path(target).name == "metrics.json")
    elif place in ("before a rename", "after a rename"):
        striking(os, "replace", after=place.startswith("after"))
    elif place == "begin":
        striking(checkpoints.Checkpoints, "on_train_start", after=True)
    elif place == "optimizer":
        striking(Supervised, "optimizer_step", after=True)
    else:
        names = {
            "step": "training_step",
            "fill": "training_step",
            "validation": "validation_step",
            "evaluation": "test_step",
        }
        striking(Supervised, names.get(place, place))
