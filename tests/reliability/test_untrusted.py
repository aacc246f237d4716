"""A checkpoint or a config from somebody else: what it asks to be run is refused and does not run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import dl_course as dl
from dl_course.cli import main
from dl_course.errors import ConfigError
from dl_course.training import load_checkpoint
from dl_course.training.checkpoints import save_atomically

SMALL = ["model.net.hidden=[11]", "trainer.max_epochs=1", "callbacks.progress=false", "callbacks.graph=false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    dl.train(dl.compose("mlp_digits", SMALL), folder=folder)
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Payload:
    """Unpickled, it runs a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


COMMANDS = {
    "eval": ["eval", "{}"],
    "init_from": ["train", *SMALL, "init_from={}"],
    "resume": ["train", "resume={}"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["best.ckpt", "resume.ckpt", "gift.ckpt"])
def test_a_pickle_that_runs_something(name, command, run, capsys):
    torch.save(load_checkpoint(run / "resume.ckpt") | {"gift": Payload()}, name)
    assert main([word.format(name) for word in COMMANDS[command]]) == 2
    check_refusal(capsys, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_checkpoint(command, run, capsys):
    whole = (run / "resume.ckpt").read_bytes()
    Path("resume.ckpt").write_bytes(whole[: len(whole) // 2])
    assert main([word.format("resume.ckpt") for word in COMMANDS[command]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"resume.ckpt: damaged or incomplete checkpoint ({len(whole) // 2} bytes)" in line


def check_refusal(capsys, *words: str) -> None:
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert 1 <= len(lines) <= 5, shown
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in shown.err
    assert not Path("executed").exists()
    assert not Path("runs").exists()


TARGETS = [
    {"_target_": "os.system", "command": "touch executed"},
    {"_target_": "os.system", "_args_": ["touch executed"]},
    {"_target_": "builtins.eval", "_args_": ["open('executed', 'w')"]},
    {"_target_": "builtins.exec", "_args_": ["open('executed', 'w')"], "_partial_": True},
    {"_target_": "subprocess.Popen", "args": ["touch", "executed"]},
    {"_target_": "pathlib.Path.touch", "_args_": ["executed"]},
    {"_target_": "torch.load", "f": "gift.ckpt", "weights_only": False},
    {"_target_": "torch.hub.load", "repo_or_dir": ".", "source": "local", "model": "gift"},
    {"_target_": "numpy.load", "file": "gift.npy", "allow_pickle": True},
    {"_target_": "hydra.utils.get_method", "path": "os.system"},
    {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "_args_": ["touch executed"]}},
    {"_target_": "hydra.utils.call", "_args_": [{"_target_": "os.system", "_args_": ["touch executed"]}]},
    {"_target_": "dl_course.training.torch.load", "f": "gift.ckpt"},
    {"_target_": "dl_course.mlp.MLP.__init__.__globals__"},
    {"_target_": "functools.partial", "_args_": [{"_target_": "hydra.utils.get_method", "path": "os.system"}]},
    {"_target_": ["os.system"], "_args_": ["touch executed"]},
    {"_target_": "${oc.env:CALLED}", "_args_": ["touch executed"]},
]
PLACES = ["model.net", "model", "optimizer", "scheduler", "data", "data.augment", "trainer", "callbacks", "logger"]
PLACES += ["model.net.hidden", "regularization", "model.loss", "data.num_classes", "seed", "experiment", "mine"]
WRAPPED = {
    "as it is": lambda payload: payload,
    "in lists": lambda payload: [[1, [payload]]],
    "in an argument": lambda payload: {"_target_": "dl_course.mlp.MLP", "_args_": [payload], "_partial_": True},
    "not recursive": lambda payload: {"_recursive_": False, "inner": {"deep": payload}},
}


def stored(run: Path, change: Any) -> dict[str, Any]:
    """A checkpoint whose configuration has been changed."""
    content = load_checkpoint(run / "resume.ckpt")
    config = OmegaConf.create(content["config"])
    change(config)
    return content | {"config": OmegaConf.to_container(config)}


@pytest.fixture(autouse=True)
def called(monkeypatch):
    monkeypatch.setenv("CALLED", "os.system")


@pytest.mark.parametrize("payload", TARGETS, ids=lambda payload: str(payload["_target_"]))
@pytest.mark.parametrize("place", ["model.net", "optimizer", "data.augment"])
def test_a_target_in_a_stored_config(payload, place, run):
    content = stored(run, lambda config: OmegaConf.update(config, place, payload, merge=False, force_add=True))
    save_atomically(content, "gift.ckpt")
    with pytest.raises(ConfigError, match="not a class of this course"):
        dl.load("gift.ckpt")
    assert not Path("executed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("place", PLACES)
def test_a_target_anywhere_and_in_anything(place, wrap, run, capsys):
    payload = WRAPPED[wrap]({"_target_": "os.system", "_args_": ["touch executed"]})
    content = stored(run, lambda config: OmegaConf.update(config, place, payload, merge=False, force_add=True))
    save_atomically(content, "gift.ckpt")
    with pytest.raises(ConfigError):
        dl.load("gift.ckpt")
    for command in ("eval", "resume"):
        assert main([word.format("gift.ckpt") for word in COMMANDS[command]]) == 2
        check_refusal(capsys)


@pytest.mark.parametrize("config", [None, 3, "text", [], {}, {"model": None}, ["x"], {"data": {}}, {3: 4}])
def test_a_stored_config_that_is_none(config, run, capsys):
    save_atomically(load_checkpoint(run / "resume.ckpt") | {"config": config}, "gift.ckpt")
    with pytest.raises(ConfigError):
        dl.load("gift.ckpt")
    for command in ("eval", "resume"):
        assert main([word.format("gift.ckpt") for word in COMMANDS[command]]) == 2
        check_refusal(capsys)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("dl_course.mlp.MLP", "os.system"),
        lambda text: text.replace(
            "hidden:\n    - 11", "hidden:\n    - {_target_: os.system, _args_: [touch executed]}"
        ),
        lambda text: text + "more: !!python/object/apply:os.system [touch executed]\n",
        lambda text: text.replace("seed: 0", "seed: !!python/object/apply:os.system [touch executed]"),
        lambda text: text[: len(text) // 2] + "}",
        lambda text: "- a list\n",
        lambda text: "",
        lambda text: text.replace("lr: 0.003", "lr: -1"),
    ],
    ids=["target", "in a list", "tag of python", "tag for a value", "no YAML", "no mapping", "empty", "out of range"],
)
def test_a_config_yaml_edited_by_hand(edit, run, tmp_path, capsys):
    """A run that was stopped before its first save is described by its config.yaml alone."""
    folder = tmp_path / "stopped"
    folder.mkdir()
    text = (run / "config.yaml").read_text()
    changed = edit(text)
    assert changed != text
    (folder / "config.yaml").write_text(changed)
    assert main(["train", "resume=stopped"]) == 2
    check_refusal(capsys)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
