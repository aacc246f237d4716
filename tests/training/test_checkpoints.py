"""A checkpoint is whole or not there, loads without executing anything, and says what is wrong with it."""

from __future__ import annotations

import os
import pickle
import random

import numpy as np
import pytest
import torch

from dl_course.errors import ConfigError, RunError
from dl_course.training.checkpoints import (
    BEST,
    PREVIOUS,
    RESUME,
    header,
    load_checkpoint,
    probe,
    random_state,
    save_atomically,
    set_random_state,
)


def content(value: float = 1.0) -> dict:
    return header({"seed": 3}, "best") | {"state_dict": {"w": torch.full((5,), value)}}


def test_round_trip(tmp_path):
    save_atomically(content(), tmp_path / BEST)
    loaded = load_checkpoint(tmp_path / BEST)
    assert loaded["config"] == {"seed": 3}
    assert torch.equal(loaded["state_dict"]["w"], torch.ones(5))
    assert os.listdir(tmp_path) == [BEST]


def test_a_disk_that_fills_up_leaves_the_old_file_whole(tmp_path, monkeypatch):
    save_atomically(content(1.0), tmp_path / BEST)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save_atomically(content(2.0), tmp_path / BEST)
    assert load_checkpoint(tmp_path / BEST)["state_dict"]["w"][0] == 1.0
    assert os.listdir(tmp_path) == [BEST]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_writer_without_space_is_reported_in_one_line(tmp_path, monkeypatch):
    real_open = open
    monkeypatch.setattr(
        "builtins.open", lambda path, mode="r", **kw: real_open("/dev/full" if mode == "wb" else path, mode, **kw)
    )
    with pytest.raises(RunError, match="cannot write"):
        save_atomically(content() | {"big": torch.zeros(100_000)}, tmp_path / BEST)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_called_damaged_and_the_older_one_offered(tmp_path, keep):
    for name in (RESUME, PREVIOUS):
        save_atomically(content(), tmp_path / name)
    whole = (tmp_path / RESUME).read_bytes()
    (tmp_path / RESUME).write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(
        RunError, match=r"damaged or incomplete checkpoint .*; take .*resume-previous.ckpt instead"
    ) as error:
        load_checkpoint(tmp_path / RESUME)
    assert len(str(error.value).splitlines()) == 1


def test_an_empty_checkpoint_is_damaged(tmp_path):
    (tmp_path / BEST).touch()
    with pytest.raises(RunError, match=r"damaged or incomplete checkpoint \(0 bytes\)"):
        load_checkpoint(tmp_path / BEST)


def test_a_text_file_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ConfigError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "notes.txt")


def test_a_torch_file_of_somebody_else_is_no_checkpoint(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="not a checkpoint of dl-course"):
        load_checkpoint(tmp_path / "other.ckpt")


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, legacy):
    proof = tmp_path / "executed"
    if legacy:
        (tmp_path / BEST).write_bytes(pickle.dumps(Payload(proof)))
    else:
        torch.save(content() | {"extra": Payload(proof)}, tmp_path / BEST)
    with pytest.raises((ConfigError, RunError)):
        load_checkpoint(tmp_path / BEST)
    assert not proof.exists()


@pytest.mark.parametrize("path", ["https://example.org/best.ckpt", "s3://bucket/best.ckpt"])
def test_urls_are_not_loaded(path):
    with pytest.raises(ConfigError, match="local files only"):
        load_checkpoint(path)


def test_random_state_is_plain_and_exact(tmp_path):
    torch.save(random_state(), tmp_path / "state")
    expected = (torch.rand(3), np.random.rand(3), random.random(), torch.randn(1), np.random.randn(1))
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    found = (torch.rand(3), np.random.rand(3), random.random(), torch.randn(1), np.random.randn(1))
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(expected, found))


def test_probe_refuses_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write into"):
        probe(tmp_path / "file" / "run")
    probe(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
