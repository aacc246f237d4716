"""What a run sets in its process, and puts back: generators, threads, the log file."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le, Lt

from dl_course.training.trainer import Precision

log = logging.getLogger("dl_course")


@dataclass
class Settings:
    """The scalars at the top of a configuration: their types and ranges."""

    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    threads: Annotated[int, Ge(1), Le(256)] = 1
    precision: Precision = "32-true"
    resume: str | None = None
    init_from: str | None = None
    debug: Literal["dry_run"] | None = None


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads; afterwards, with as many as before (a notebook has its own setting), and as
    deterministically."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what the program logs to a file in the run folder while training."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    except BaseException as error:
        log.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        handler.close()
