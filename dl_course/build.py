"""From a configuration to objects: the data, then the model that fits it. Training and evaluation share this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from dl_course.errors import ConfigError, CourseError
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
    """Instantiate `config.model`, whose sizes may refer to the data's."""
    return _instantiate(_plain(config.model), "model")


def check_fit(task: Task, data: Any) -> None:
    """Pass two samples through the task, so that sizes that do not fit together are found before anything is written.

    Weights, mode and random state stay as they were. Raises ConfigError with the shapes.
    """
    if not hasattr(data, "example"):
        return
    batch = data.example()
    training = task.training
    try:
        with torch.no_grad(), torch.random.fork_rng():
            task.eval().step(batch)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, CourseError):
            raise
        shapes = ", ".join(f"{name} {tuple(part.shape)} {part.dtype}" for name, part in zip("xy", batch))
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"the model does not fit the data: {reason}\ntwo samples are {shapes}") from error
    finally:
        task.train(training)


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers: what run folders and checkpoints keep."""
    return _plain(config)


def _plain(node: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


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
        if isinstance(cause, ValueError | TypeError | MisconfigurationException):
            raise ConfigError(f"{where}: {str(cause).splitlines()[0]}") from error
        raise cause from error


def build(node: DictConfig, where: str, **extra: Any) -> Any:
    """Instantiate one node with further arguments that only the program knows (a folder, callbacks)."""
    return _instantiate(_plain(node), where, **extra)
