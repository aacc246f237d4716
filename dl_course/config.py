"""Composition: from an experiment's name and overrides to one config, the same from the command and from Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dl_course.catalog import CONFIGS, experiment_names
from dl_course.errors import ConfigError, suggest

PRIMARY = "train"
"""The name of the primary config, configs/train.yaml."""

REPLACED = ("optimizer", "scheduler", "data")
"""Groups whose option, once named by the user, stands alone: what the experiment set for its own option is left out."""


def short_hash(text: str) -> str:
    """Eight hexadecimal digits that name a sweep's job by its overrides."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


OmegaConf.register_new_resolver("short_hash", short_hash, replace=True)


class Loader(ConfigLoaderImpl):
    """Hydra's loader with two additions, in single runs, sweeps, completion and `compose` alike.

    1. An option that the user names replaces the experiment's: with `optimizer=adam`, the `optimizer:` part of the
       experiment file, written for another option, is left out (Hydra alone would merge it into Adam's).
    2. `experiment.name` is the name of the chosen file.
    """

    _named: frozenset[str] = frozenset()

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        chosen = config.hydra.runtime.choices.get("experiment")
        if chosen and "experiment" in config and OmegaConf.select(config, "experiment.name") is None:
            with open_dict(config):
                config.experiment.name = chosen
        return config

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed, repository = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        self._named = frozenset(
            override.key_or_group
            for override in parsed
            if override.key_or_group in REPLACED and not isinstance(override.value(), dict)
        )
        return parsed, repository

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        result = super()._load_single_config(default, repo)
        if self._named and (default.config_path or "").startswith("experiment/"):
            body = cast(DictConfig, result.config)
            with open_dict(body):
                for group in self._named & body.keys():
                    del body[group]
        return result


def config_loader(config_dir: str | Path | None = None, config_path: str | Path = CONFIGS) -> Loader:
    """A loader for the shipped configs and, after them in rank, those in `config_dir`."""
    version.setbase("1.3")
    setup_globals()
    search_path = create_config_search_path(str(config_path))
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {config_dir}: no such folder")
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return Loader(search_path)


def compose(
    name: str = "mlp_digits", overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> DictConfig:
    """The config of `dl-course train experiment=<name> <overrides>`.

    Works any number of times in one process and in any working directory; Hydra need not be initialised, and its
    global state is left as it was. Raises ConfigError, with a suggestion where one is near.
    """
    loader = config_loader(config_dir)
    words = [f"experiment={name}", *overrides]
    with readable_errors(loader, words):
        config = loader.load_configuration(PRIMARY, words, RunMode.RUN, from_shell=False)
    with open_dict(config):
        del config["hydra"]
    return config


# -- errors that help ----------------------------------------------------------------------------------------------


@contextmanager
def readable_errors(loader: Loader, overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise while composing into a ConfigError of at most five lines."""
    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_missing(error)) from error
    except OverrideParseException as error:
        raise ConfigError(_unreadable(error.override, loader)) from error
    except ConfigCompositionException as error:
        raise ConfigError(_refused(error, loader, overrides)) from error
    except (ValueError, TypeError) as error:  # the latter for a list with numbers
        if (sentence := _no_option(loader, overrides)) is None:
            raise
        raise ConfigError(sentence) from error
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(_first_lines(error)) from error


def _first_lines(error: BaseException, count: int = 3) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "full_key:" not in line]
    return "\n".join(line for line in lines[:count] if not line.startswith("object_type="))


def _options(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _missing(error: MissingConfigException) -> str:
    """There is no such file in the group."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or [])
    if group == "experiment":
        return f"no experiment is named '{option}'{suggest(option, options)}\n`dl-course list` shows them all"
    if group:
        return f"{group} has no option '{option}'{suggest(option, options)}\noptions: {_options(options)}"
    return _first_lines(error)


def _unreadable(override: str, loader: Loader) -> str:
    """Not a key=value."""
    if "=" not in override:
        if override in experiment_names():
            return f"'{override}' is no key=value; did you mean 'experiment={override}'?"
        keys = _keys(loader, [])
        near = f"; type {override}=…" if override in keys else suggest(override, [*experiment_names(), *keys])
        return f"'{override}' is no key=value{near}\nexample: dl-course train experiment=mlp_digits optimizer.lr=0.01"
    return (
        f"cannot read '{override}': its value is no number, word, [list] or {{key: value}}\n"
        "quote text that holds signs, for Hydra and for the shell: 'key=\"a, b = c\"'"
    )


def _no_option(loader: Loader, overrides: Sequence[str]) -> str | None:
    """A group was given a number, a list or null; None if that is not so."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if loader.repository.group_exists(override.key_or_group) and not isinstance(override.value(), str | dict):
            options = sorted(loader.get_group_options(override.key_or_group))
            return f"'{override.input_line}' names no option of {override.key_or_group}\noptions: {_options(options)}"
    return None


def _refused(error: ConfigCompositionException, loader: Loader, overrides: Sequence[str]) -> str:
    """Everything else that Hydra says while composing: mostly a key that is not there."""
    text = str(error)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, line = override.key_or_group, override.input_line or ""
        if line and line in text and override.is_sweep_override():
            return f"'{line}' has several values: add -m to run one job for each; a list is written {key}=[a,b]"
        if f"'{key}'" in text or (line and text.endswith(f"override {line}")):
            return _unknown_key(line, key, loader, overrides, error)
    return _first_lines(error)


def _unknown_key(line: str, key: str, loader: Loader, overrides: Sequence[str], error: BaseException) -> str:
    """The deepest part of `key` that exists, and the nearest of its keys."""
    known = _keys(loader, overrides)
    if loader.repository.group_exists(key) or key in known:
        return f"cannot use '{line}': {_first_lines(error, 1)}"
    parent, _, last = key.rpartition(".")
    while parent and parent not in known:
        parent, _, last = parent.rpartition(".")
    here = [k[len(parent) + 1 if parent else 0 :] for k in known if k.rpartition(".")[0] == parent]
    if not here:
        value = known.get(parent)
        return f"'{line}' cannot be set: {parent} is {'null' if value is None else value}"
    near = suggest(last, here)
    if not near:  # the right name in another place?
        elsewhere = [k for k in known if k.rpartition(".")[2] == last]
        near = f"; did you mean '{elsewhere[0]}'?" if elsewhere else suggest(key, known)
    owner = parent or "the config"
    return f"{owner} has no key '{last}'{near}\nkeys: {_options(sorted(here), 20)}"


def _keys(loader: Loader, overrides: Sequence[str]) -> dict[str, Any]:
    """Every dotted key of the config without the value overrides, and the value where it is no node."""
    parser = OverridesParser.create()
    chosen = []
    for word in overrides:
        with_group = parser.parse_override(word)
        if loader.repository.group_exists(with_group.key_or_group) and isinstance(with_group.value(), str):
            chosen.append(word)
    config = loader.load_configuration(PRIMARY, chosen, RunMode.RUN, from_shell=False)
    if not any(word.lstrip("+~").startswith("hydra") for word in overrides):
        with open_dict(config):
            del config["hydra"]
    return dict(_flatten(OmegaConf.to_container(config), ""))


def _flatten(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}", value
            yield from _flatten(value, f"{prefix}{key}.")
