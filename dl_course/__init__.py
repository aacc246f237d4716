"""A deep-learning course that runs. From Python:

    import dl_course as dl

    config = dl.compose("mlp_digits", ["optimizer.lr=0.01"])
    run = dl.train(config)                       # run.path, run.metrics, run.model
    task = dl.load(run.path)                     # in eval mode; task.net is the network
    dl.experiments()                             # what there is to run

Importing this package imports nothing heavy: each name is fetched when it is first used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dl_course.environment import prepare

if TYPE_CHECKING:
    from dl_course.catalog import experiments
    from dl_course.config import compose
    from dl_course.evaluate import load
    from dl_course.train import train

prepare()  # here, since it must come before torch and Lightning look for a GPU

__version__ = "0.1.0"

__all__ = ["__version__", "compose", "experiments", "load", "train"]

_HOME = {
    "compose": "dl_course.config",
    "experiments": "dl_course.catalog",
    "load": "dl_course.evaluate",
    "train": "dl_course.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dl_course' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Package(ModuleType):
    """This package, in which `train` stays the function: importing the module `dl_course.train` does not hide it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
