"""What must be set before torch is imported."""

from __future__ import annotations

import glob
import os
import sys

_ACCELERATOR_DEVICES = ("/dev/nvidia*", "/dev/nvmap", "/dev/nvhost*", "/dev/dxg", "/dev/kfd")
"""Device files of NVIDIA cards, Jetson boards, Windows' Linux subsystem and AMD cards."""


def prepare(accelerator: str = "auto") -> None:
    """Hide CUDA where it cannot or shall not be used.

    On a CUDA build of torch without a GPU, importing Lightning makes each `torch.cuda.is_available()` about 30 times
    slower, and every optimiser step asks it: 125 µs a step. An empty CUDA_VISIBLE_DEVICES, set before the import,
    takes that away. A value that the user has set is left alone; elsewhere than on Linux nothing is done.
    """
    if sys.platform != "linux" or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    if accelerator == "cpu" or not any(glob.glob(pattern) for pattern in _ACCELERATOR_DEVICES):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
