"""Is a config right? Answered from the signatures that its values will be passed to, before any data or model work.

Ranges and choices live in the annotations of constructors (`Annotated[int, Ge(1)]`, `Literal["relu", "tanh"]`), so code
and check cannot drift. A config also decides which code runs: each `_target_` must be on the allow-list.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import pkgutil
import re
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

import annotated_types as at
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

import dl_course
from dl_course.catalog import CONFIGS
from dl_course.errors import ConfigError, suggest

OPEN = "<read from the data>"
"""Stands for a fact of the data (`num_classes: null`) that is known only once the data has been read."""

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}


class About(TypedDict, total=False):
    """The `experiment` node: what the experiment is."""

    name: Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$")]
    topic: str
    about: str
    data: Literal["embedded", "benchmark", "yours"]
    reaches: dict[str, float]
    minutes: Annotated[float, at.Gt(0)]


NODES = ("data", "model", "optimizer", "scheduler", "regularization", "trainer", "callbacks", "logger")
"""The keys that describe objects; beside them stand `experiment` and the fields of `training.process.Settings`."""

OPTIONAL = ("optimizer", "scheduler", "regularization")
"""Those that may be null."""


def check(config: DictConfig) -> None:
    """Raise ConfigError, which names up to four keys and what they expect, unless every value fits its signature.

    Checked: every `_target_` against the allow-list; unknown and missing keys; types, ranges and choices; what
    constructors of optimiser and schedule say about combinations; references; the scalars at the top.
    """
    from dl_course.training.process import Settings

    missing = list(_missing(OmegaConf.to_container(config)))
    if missing:
        raise ConfigError("\n".join(f"{key} has no value; type {key}=…" for key in missing[:4]))
    resolved = _resolve(config)
    settings = get_type_hints(Settings, include_extras=True)
    needed = [key for key in ("experiment", *NODES, *settings) if key not in OPTIONAL]
    problems: dict[Any, str] = {key: f"the config needs the key '{key}'" for key in needed if key not in resolved}
    for key, value in resolved.items():
        if key in NODES and "_target_" not in (value if isinstance(value, dict) else ()):
            if value is None and key in OPTIONAL:
                continue
            problems[key] = f"{key}={_shown(value)}: expected a mapping with a _target_"
        elif key in NODES:
            # model.optimizer is optimizer: the shorter name is reported
            for found in _node_problems(value, key, _kinds()[key]):
                problems[found.identity] = min(found.text, problems.get(found.identity, found.text), key=len)
        elif key in settings and _has_target(value):
            problems[key] = f"{key}={_shown(value)}: expected {describe(settings[key])}"
        elif key in settings:
            problems[key] = _too_early(key, value) or _misfit(key, value, settings[key]) or ""
        elif key == "experiment":
            problems[key] = _about_problem(value) or ""
        else:
            problems[key] = f"the config has no key '{key}'{suggest(key, [*settings, *NODES])}"
    sentences = [text for text in problems.values() if text]
    if sentences:
        raise ConfigError("\n".join("\n".join(sentences).splitlines()[:4]))
    _try_optimizer(resolved)


# -- values --------------------------------------------------------------------------------------------------------


def _missing(node: Any, path: str = "") -> Iterator[str]:
    """The keys whose value is `???`."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _missing(value, f"{path}.{index}")
    elif node == "???":
        yield path


def _resolve(config: DictConfig) -> dict[str, Any]:
    """Plain containers with all references followed; open facts of the data become OPEN."""
    from dl_course.build import facts_of

    copy = OmegaConf.create(OmegaConf.to_container(config))
    try:
        target = OmegaConf.select(copy, "data._target_")
        if isinstance(target, str):
            for fact in facts_of(find_target(target, "data")) & copy.data.keys():
                if not OmegaConf.is_interpolation(copy.data, fact) and copy.data[fact] is None:
                    copy.data[fact] = OPEN
        resolved = OmegaConf.to_container(copy, resolve=True)
    except InterpolationKeyError as error:
        raise ConfigError(_dangling(error, copy)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{getattr(error, 'full_key', '')}: {str(error).splitlines()[0]}".lstrip(": ")) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _dangling(error: InterpolationKeyError, config: Any) -> str:
    """A reference to a key that is not there."""
    words = re.search(r"'([^']+)' not found", str(error))
    key = words[1] if words else "a key"
    parent, _, last = key.rpartition(".")
    near = OmegaConf.select(config, parent) if parent else config
    return (
        f"{error.full_key} refers to ${{{key}}}, which is not in the config"
        f"{suggest(last, near) if isinstance(near, DictConfig) else ''}"
    )


def _misfit(path: str, value: Any, annotation: Any) -> str | None:
    """None where a value, or the object that a node describes, is what the annotation asks for."""
    return _kind_problem(path, value, annotation) or _value_problem(path, value, annotation)


def _value_problem(path: str, value: Any, annotation: Any) -> str | None:
    """None where the value fits, else a sentence: `trainer.max_epochs=three: expected an integer >= 1`.

    Values are judged as JSON: 1 is a number where one is wanted, 1.0 and true are no integers, a list is a tuple.
    """
    if annotation is inspect.Parameter.empty or _is_open(value) or _has_target(value):
        return None
    adapter = _adapter(annotation)
    if adapter is None:
        return None
    try:
        adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        choices = list(_choices(annotation))
        words = [word for word in (value if isinstance(value, list) else [value]) if word not in choices]
        near = suggest(words[0], choices) if words and isinstance(words[0], str) else ""
        return f"{path}={_shown(value)}: expected {describe(annotation)}{near}"
    if any(isinstance(part, int) and abs(part) >= 2**63 for part in (value if isinstance(value, list) else [value])):
        return f"{path}={_shown(value)}: integers here have at most 63 bits"
    return None


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """pydantic's validator of an annotation; None for what it cannot judge."""
    for config in (ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False), None):
        try:
            return TypeAdapter(annotation, config=config)
        except PydanticUserError:
            continue
    return None


def _is_open(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_open, value))
    return isinstance(value, str) and OPEN in value


def _too_early(path: str, value: Any) -> str | None:
    """A sentence where something that is needed before the data refers to what they will tell."""
    return f"{path} refers to what is known only after the data have been read" if _is_open(value) else None


def _has_target(value: Any) -> bool:
    """Whether an object will be built here: its own signature is checked instead."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))


def _shown(value: Any) -> str:
    """A value as one types it."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def describe(annotation: Any) -> str:
    """What an annotation accepts, in words: `Annotated[int, Ge(1)] | None` → "an integer >= 1 or null"."""
    if hasattr(annotation, "__value__"):  # `type Name = …`
        return describe(annotation.__value__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([describe(arguments[0]), _bounds(arguments[1:])]).strip()
    if origin in (Union, types.UnionType):
        # null last; functions and objects cannot be typed on a command line
        parts = [describe(a) for a in arguments if a is not type(None) and get_origin(a) is not Callable]
        parts = list(dict.fromkeys(part for part in parts if part)) or ["an object"]
        return " or ".join([*parts, *(["null"] if type(None) in arguments else [])])
    if origin is Callable:
        return "a function"
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(_shown, arguments))
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list [{', '.join(describe(a) for a in arguments)}]"
    if origin is not None and arguments and inspect.isclass(origin):
        if issubclass(origin, Mapping):
            return "a mapping"
        return f"a list, each {describe(arguments[0])}"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    words |= {list: "a list", tuple: "a list", dict: "a mapping"}
    return words.get(annotation, f"a {getattr(annotation, '__name__', str(annotation))}")


def _bounds(metadata: tuple[Any, ...]) -> str:
    signs = {at.Ge: ">=", at.Gt: ">", at.Le: "<=", at.Lt: "<"}
    names = {at.Ge: "ge", at.Gt: "gt", at.Le: "le", at.Lt: "lt"}
    found = [f"{signs[type(m)]} {getattr(m, names[type(m)])}" for m in metadata if type(m) in signs]
    found += [f"that matches {m.pattern}" for m in metadata if isinstance(m, StringConstraints) and m.pattern]
    return " and ".join(found)


def _choices(annotation: Any) -> Iterator[str]:
    """The words that an annotation offers."""
    if get_origin(annotation) is Literal:
        yield from (word for word in get_args(annotation) if isinstance(word, str))
    else:
        for part in get_args(annotation):
            if get_origin(part) is not None:
                yield from _choices(part)


def _about_problem(value: Any) -> str | None:
    known = get_type_hints(About, include_extras=True)
    value = {} if value is None else value
    if not isinstance(value, dict):
        return f"experiment={_shown(value)}: expected a mapping"
    for key in value:
        if key not in known:
            return (
                f"experiment has no key '{key}'{suggest(key, known)}\n"
                "an experiment file starts with the line '# @package _global_'"
            )
        if problem := _misfit(f"experiment.{key}", value[key], known[key]):
            return problem
    return None


# -- nodes ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Problem:
    """A sentence, and what it is about: a node that is referred to twice is reported once."""

    identity: tuple[str, ...]
    text: str


def _node_problems(node: Any, path: str, wanted: Any = inspect.Parameter.empty) -> Iterator[_Problem]:
    """Everything wrong with the calls in this node and below. wanted: the annotation of the object to be described."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _node_problems(item, f"{path}.{index}")
    elif isinstance(node, dict):
        if wrong := _kind_problem(path, node, wanted):
            yield _Problem((str(node),), wrong)
            return
        if "_target_" in node:
            yield from _call_problems(node, path)
        target = _target_of(node, path)
        hints = _hints(target) if target else {}
        for key, value in node.items():
            yield from _node_problems(value, f"{path}.{key}", hints.get(key, inspect.Parameter.empty))


def _call_problems(node: dict[str, Any], path: str) -> Iterator[_Problem]:
    from dl_course.build import facts_of

    name = str(node["_target_"])
    try:
        target = find_target(name, path)
    except ConfigError as error:
        yield _Problem((name,), str(error))
        return
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    facts = facts_of(target) if path == "data" and inspect.isclass(target) else set()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    keys = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for key, value in node.items():
        if key in _HYDRA_KEYS:
            continue
        if key in facts and key not in keys:
            hint = get_type_hints(getattr(target, key).fget, include_extras=True).get("return", inspect.Parameter.empty)
            problem = None if value is None else _value_problem(f"{path}.{key}", value, hint)
        elif key in keys:
            problem = _too_early(f"{path}.{key}", value) if path == "data" else None
            hint = hints.get(key, inspect.Parameter.empty)
            problem = problem or _value_problem(f"{path}.{key}", value, hint)
        elif open_ended and key != "_args_":
            problem = None
        else:
            known = [*keys, *facts]
            settable = [k for k in keys if parameters[k].kind is inspect.Parameter.KEYWORD_ONLY] or keys
            problem = f"{path} has no key '{key}'{suggest(key, known) or _list(settable)}"
        if problem:
            yield _Problem((name, str(key), str(value)), problem)
    if not node.get("_partial_"):
        for key in keys:
            if parameters[key].default is inspect.Parameter.empty and key not in node:
                yield _Problem((name, key), f"{path} needs the key '{key}': {describe(hints.get(key, Any))}")


def _target_of(node: Any, path: str) -> Any:
    """What a node calls; None if it is no call, or one that is not allowed."""
    try:
        return find_target(str(node["_target_"]), path) if isinstance(node, dict) and "_target_" in node else None
    except ConfigError:
        return None


@cache
def _kinds() -> dict[str, Any]:
    """What each of NODES describes."""
    from lightning.pytorch import LightningDataModule, Trainer
    from lightning.pytorch.callbacks import Callback

    from dl_course.training import Regularization, Task
    from dl_course.training.task import OptimizerFactory, SchedulerFactory
    from dl_course.training.tensorboard import EventLogger

    return {
        "data": LightningDataModule,
        "model": Task,
        "optimizer": OptimizerFactory | None,  # pyright: ignore[reportOperatorIssue]
        "scheduler": SchedulerFactory | None,  # pyright: ignore[reportOperatorIssue]
        "regularization": Regularization | None,
        "trainer": Trainer,
        "callbacks": list[Callback],
        "logger": EventLogger | bool,
    }


def _kind_problem(path: str, node: Any, annotation: Any) -> str | None:
    """A sentence if this node describes another kind of object than the one that is expected here."""
    target = _target_of(node, path)
    if target is None or annotation is inspect.Parameter.empty:
        return None
    made = target if inspect.isclass(target) else _hints(target).get("return")
    partial = bool(node.get("_partial_"))
    if any(_makes(made, partial, wanted) for wanted in _members(annotation)):
        return None
    kind = "_partial_ of " * partial + str(node["_target_"])
    makers = [arguments[-1] for arguments in map(get_args, _members(annotation)) if arguments[:1] == (...,)]
    names = [f"a _partial_ that makes a {maker.__name__}" for maker in makers]
    return f"{path} is {kind}: expected {' or '.join(names) or describe(annotation)}"


def _members(annotation: Any) -> tuple[Any, ...]:
    """The parts of a union, or the annotation alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _makes(made: Any, partial: bool, wanted: Any) -> bool:
    """Whether a call that returns `made`, or with `partial` the function that will, is what is wanted; yes in doubt."""
    if get_origin(wanted) is Callable:
        return not partial or any(_makes(one, False, get_args(wanted)[-1]) for one in _members(made))
    if get_origin(wanted) is Annotated:
        return _makes(made, partial, get_args(wanted)[0])
    kind = get_origin(wanted) or wanted
    kinds = [get_origin(one) or one for one in _members(made)]
    if kind is Any or (not partial and not all(map(inspect.isclass, kinds))):
        return True
    return not partial and inspect.isclass(kind) and any(issubclass(one, kind) for one in kinds)


def _list(keys: list[str]) -> str:
    return f"; its keys: {', '.join(keys[:12])}{', …' if len(keys) > 12 else ''}"


def _hints(target: Any) -> dict[str, Any]:
    """The annotations of what a class or function is called with."""
    if dataclasses.is_dataclass(target):
        return get_type_hints(target, include_extras=True)
    return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)


def _try_optimizer(config: dict[str, Any]) -> None:
    """Let the factories of optimiser and schedule judge combinations, on a parameter of their own."""
    import torch
    from hydra.utils import instantiate

    parameter = torch.nn.Parameter(torch.zeros(1))
    key = "optimizer"
    try:
        if config.get("optimizer"):
            optimizer = instantiate(config["optimizer"], _convert_="all")([parameter])
            key = "scheduler"
            if config.get("scheduler"):
                instantiate(config["scheduler"], _convert_="all")(optimizer, total_steps=10, steps_per_epoch=5)
    except Exception as error:
        cause: BaseException = error.__cause__ or error
        raise ConfigError(f"{key}: {cause}") from error


# -- the allow-list ------------------------------------------------------------------------------------------------


def find_target(name: str, path: str = "") -> Any:
    """The class or function that a `_target_` names, if it may be called. Raises ConfigError otherwise.

    Allowed are: public classes of the rooms, as `dl_course.<room>.<Class>`; what a shipped config names; and, by the
    user's own decision, everything in the packages that the environment variable DL_COURSE_TRUST lists.
    """
    from hydra.utils import get_object

    trusted = [package for package in re.split(r"[,:;\s]+", os.environ.get("DL_COURSE_TRUST", "")) if package]
    if any(name == package or name.startswith(f"{package}.") for package in trusted):
        try:
            return get_object(name)
        except Exception as error:
            raise ConfigError(f"{path}._target_={name}: {str(error).splitlines()[0]}".lstrip(".")) from error
    if name in shipped_targets() or name in public_classes(name.rpartition(".")[0]):
        return get_object(name)
    known = [*shipped_targets(), *public_classes(name.rpartition(".")[0])]
    raise ConfigError(
        f"{path}._target_={name}: not a class of this course{suggest(name, known)}\n".lstrip(".")
        + "classes of your own are accepted when DL_COURSE_TRUST=<package> names their package"
    )


def is_allowed(name: str) -> bool:
    """Whether `find_target` accepts the name."""
    try:
        find_target(name)
    except ConfigError:
        return False
    return True


@cache
def shipped_targets() -> frozenset[str]:
    """Every `_target_` in the shipped configs."""
    files = CONFIGS.rglob("*.yaml")
    return frozenset(
        target
        for path in files
        for target in re.findall(r"^\s*(?:- )?_target_:\s*([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    )


@cache
def public_classes(room: str) -> frozenset[str]:
    """`dl_course.<room>.<Class>` for each class in the `__all__` of a room; nothing if there is no such room."""
    rooms = {f"dl_course.{info.name}" for info in pkgutil.iter_modules(dl_course.__path__) if info.ispkg}
    if room not in rooms:
        return frozenset()
    module = import_module(room)
    public = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return frozenset(
        f"{room}.{name}"
        for name, value in public.items()
        if inspect.isclass(value) and value.__module__.startswith("dl_course.")
    )
