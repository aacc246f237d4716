"""CUDA is hidden before torch is imported where it cannot or shall not be used, and never against the user's word."""

import os
import sys

import pytest

from dl_course import environment


@pytest.fixture
def devices(monkeypatch):
    """Pretends that exactly these device files exist, on Linux, with nothing set by the user."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # restored afterwards, whatever `prepare` does
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def exist(*paths: str) -> None:
        monkeypatch.setattr(environment.glob, "glob", lambda pattern: [p for p in paths if p.startswith(pattern[:-1])])

    return exist


@pytest.mark.parametrize("path", ["/dev/nvidia0", "/dev/dxg", "/dev/kfd"])
def test_a_gpu_stays_visible_unless_the_cpu_is_asked_for(devices, path):
    devices(path)
    environment.prepare()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    environment.prepare("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_without_a_gpu_cuda_is_hidden(devices):
    devices("/dev/null", "/dev/nvme0")
    environment.prepare()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_what_the_user_has_set_stays(devices, monkeypatch):
    devices()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    environment.prepare("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_elsewhere_nothing_is_done(devices, monkeypatch):
    devices()
    monkeypatch.setattr(sys, "platform", "darwin")
    environment.prepare("cpu")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
