"""From a configuration to objects: the data, then the model that fits it. Training and evaluation share this."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from dl_course.errors import ConfigError, CourseError, suggest
from dl_course.training import Task


def facts_of(target: type) -> set[str]:
    """Names of what a data set knows about itself (`num_classes`, `shape`, …): the properties of its class.

    A data node states them as plain keys, so that `${data.num_classes}` can size a model; null means "see the file".
    """
    return {name for name in dir(target) if isinstance(getattr(target, name, None), property)}


def build_data(config: DictConfig) -> Any:
    """Instantiate `config.data`; fill its open facts and check the stated ones against what was loaded.

    What refers to a fact that was open is checked now, as everything else was before.
    """
    from dl_course.check import check

    node, filled = config.data, False
    facts = [key for key in node if key in facts_of(get_class(node._target_))]
    arguments = {key: value for key, value in _plain(node).items() if key not in facts}
    data = _instantiate(arguments, "data")
    data.prepare_data()
    data.setup()
    for key in facts:
        stated, found = _plain(node)[key], getattr(data, key)
        found = list(found) if isinstance(found, tuple | list) else found
        if stated is None:
            OmegaConf.update(config, f"data.{key}", found, merge=False)
            filled = True
        elif stated != found:
            raise ConfigError(f"data.{key}={stated}, but the data has {found}")
    if filled:
        check(config)
    return data


def build_model(config: DictConfig) -> Task:
    """Instantiate `config.model`, whose sizes may refer to the data's. Raises ConfigError if memory cannot hold it."""
    node = _plain(config.model)
    _check_memory(node)
    return _instantiate(node, "model")


def _check_memory(node: Mapping[str, Any]) -> None:
    """Build the model without its numbers, on torch's meta device, and compare what they will take with the machine.

    Asking for more can succeed, with the operating system ending the program when it writes there.
    """
    try:
        with torch.device("meta"):
            model = instantiate(dict(node), _convert_="all")
        size = sum(parameter.nbytes for parameter in model.parameters())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except Exception:  # not everything can be built so, and not every system tells: the real attempt will say
        return
    if 3 * size > memory:
        raise ConfigError(
            f"model: its weights take {size / 2**30:,.1f} GiB, and training holds them at least three times "
            f"(weights, gradients, the best so far)\nthis machine has {memory / 2**30:,.1f} GiB of memory"
        )


def check_fit(task: Task, data: Any, monitor: str = "last") -> None:
    """Pass two samples through the task, so that sizes that do not fit together are found before anything is written.

    Weights, mode and random state stay as they were. Raises ConfigError with the shapes, or if `monitor`, a tag such as
    `val/loss`, names a metric that the task does not compute.
    """
    if not hasattr(data, "example"):
        return
    batch = data.example()
    training = task.training
    try:
        with torch.no_grad(), torch.random.fork_rng():
            computed = task.eval().step(batch)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, CourseError):
            raise
        shapes = ", ".join(f"{name} {tuple(part.shape)} {part.dtype}" for name, part in zip("xy", batch))
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"the model does not fit the data: {reason}\ntwo samples are {shapes}") from error
    finally:
        task.train(training)
    stage, _, name = monitor.rpartition("/")
    if stage and name not in computed:
        near = suggest(monitor, [f"{stage}/{known}" for known in computed])
        raise ConfigError(f"callbacks.monitor={monitor}: the model computes {', '.join(computed)}{near}")


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers: what run folders and checkpoints keep."""
    return _plain(config)


def _plain(node: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


_REFUSALS = (ValueError, TypeError, ArithmeticError, MemoryError, RuntimeError, MisconfigurationException)
"""What a constructor raises that cannot do with its arguments."""


def _instantiate(node: Mapping[str, Any], where: str, **extra: Any) -> Any:
    """Hydra's instantiate with its long traceback reduced to the sentence that the constructor wrote."""
    try:
        # The extra arguments go to the function itself: Hydra would look for `_target_` inside them.
        return (
            instantiate({**node, "_partial_": True}, _convert_="all")(**extra)
            if extra
            else instantiate(dict(node), _convert_="all")
        )
    except CourseError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, CourseError):
            raise cause from error
        if isinstance(cause, _REFUSALS):
            raise ConfigError(f"{where}: {next(iter(str(cause).splitlines()), type(cause).__name__)}") from error
        raise cause from error


def build(node: DictConfig, where: str, **extra: Any) -> Any:
    """Instantiate one node with further arguments that only the program knows (a folder, callbacks)."""
    return _instantiate(_plain(node), where, **extra)
