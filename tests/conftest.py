"""What every test shares: a fixed seed, one thread, and the place of the real data sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the benchmark data sets (MNIST and others); the test is skipped where it is absent."""
    root = os.environ.get("DL_COURSE_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("DL_COURSE_DATA names no folder with the benchmark data sets")
    return Path(root).resolve()
