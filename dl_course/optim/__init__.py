"""Optimisers and learning-rate schedules, as factories that a config or `functools.partial` can fill in."""

from dl_course.optim.factories import adagrad, adam, adamw, lbfgs, rmsprop, sgd
from dl_course.optim.schedules import cosine, exponential, linear, onecycle, step, warmup

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "cosine",
    "exponential",
    "lbfgs",
    "linear",
    "onecycle",
    "rmsprop",
    "sgd",
    "step",
    "warmup",
]
