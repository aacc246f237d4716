"""`dl-course train` is a Hydra application: overrides, --cfg, --info, -m, --config-dir, launchers, sweepers.

Hydra's own entry point is not used, because it prints its errors itself and leaves with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from typing import Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dl_course.catalog import CONFIGS
from dl_course.config import PRIMARY, Loader, config_loader, readable_errors
from dl_course.environment import prepare
from dl_course.errors import ConfigError, CourseError, RunError, report, suggest


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one of ours."""

    def error(self, message: str) -> NoReturn:
        words = message.rpartition(": ")[2].split()
        options = [option for action in self._actions for option in action.option_strings]
        raise ConfigError(f"train: {message}{suggest(words[0], options) if words else ''}\nsee: dl-course train --help")


def parser() -> argparse.ArgumentParser:
    """Hydra's options and ours."""
    ours = _Parser(prog="dl-course train", add_help=False, parents=[get_args_parser()], conflict_handler="resolve")
    ours.add_argument("--dry-run", action="store_true", help="Compose, check and build everything, write nothing")
    ours.add_argument("--quiet", "-q", action="store_true", help="No progress bar, no table")
    ours.add_argument("--version", action="store_true", help="Show the version and exit")
    return ours


def launch(words: list[str]) -> int:
    """Compose and run what the words after `dl-course train` ask for. Returns the exit code; raises CourseError."""
    arguments = parser().parse_intermixed_args(words)
    if arguments.version:
        from dl_course import __version__

        print(f"dl-course {__version__}")
        return 0
    if arguments.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun loads a pickle, which may run anything\ntake resume=<run> or init_from=<run>"
        )
    if arguments.shell_completion:
        raise ConfigError('completion is a command of its own: eval "$(dl-course completion bash)"')
    for option in ("resolve", "package"):
        if getattr(arguments, option) and not arguments.cfg:
            raise ConfigError(f"--{option} goes with --cfg: dl-course train --cfg job --resolve --package optimizer")
    shown = [f"--{name}" for name in ("cfg", "info", "run", "multirun", "hydra_help") if getattr(arguments, name)]
    if len(shown) > 1:
        raise ConfigError(f"{' and '.join(shown)} do not go together")
    if arguments.quiet:
        os.environ["DL_COURSE_QUIET"] = "1"
    overrides: list[str] = [*arguments.overrides, *(["debug=dry_run"] if arguments.dry_run else [])]
    loader = config_loader(arguments.config_dir, arguments.config_path or CONFIGS)
    name: str = arguments.config_name or PRIMARY
    hydra = Hydra(task_name="train", config_loader=loader)
    GlobalHydra.instance().initialize(hydra)
    try:
        with readable_errors(loader, overrides):
            failure = _act(hydra, loader, name, overrides, arguments)
    finally:
        GlobalHydra.instance().clear()
    if failure is not None:
        raise failure
    return 0


def _act(
    hydra: Hydra, loader: Loader, name: str, overrides: list[str], arguments: argparse.Namespace
) -> Exception | None:
    """Show or run. Returns what a single run raised: it comes out as it is, not through Hydra's printing."""
    if arguments.cfg:
        hydra.show_cfg(name, overrides, arguments.cfg, arguments.package, arguments.resolve)
    elif arguments.info:
        hydra.show_info(arguments.info, name, overrides)
    elif arguments.hydra_help:
        hydra.hydra_help(name, parser(), arguments)
    elif arguments.multirun or hydra.get_mode(name, overrides) == RunMode.MULTIRUN:
        _sweep(hydra, loader, name, overrides, dry_run=arguments.dry_run)
    else:
        return _single(hydra, name, overrides)
    return None


def _typed(node: Any) -> list[str]:
    """The overrides as they were typed, references and all. node: Hydra's part of a config."""
    words = OmegaConf.to_container(node.overrides.task)
    assert isinstance(words, list)
    return [str(word) for word in words]


# -- one run -------------------------------------------------------------------------------------------------------


def _single(hydra: Hydra, name: str, overrides: list[str]) -> Exception | None:
    """Run one job in this process; returns what it raised."""
    raised: list[Exception] = []

    def job(config: DictConfig) -> float | None:
        try:
            prepare(OmegaConf.select(config, "trainer.accelerator") or "auto")
            from dl_course.train import run_command

            return run_command(config, overrides=_typed(HydraConfig.get()))
        except Exception as error:
            raised.append(error)
            return None

    hydra.run(name, job, [*overrides, "hydra.mode=RUN"], with_log_configuration=False)
    return raised[0] if raised else None


# -- a sweep -------------------------------------------------------------------------------------------------------


class Job:
    """One job of a sweep: a failure is reported at once and does not stop the others.

    Hydra's launchers keep an Exception as the job's result and go on; SystemExit would end them, so it becomes a
    RunError. An interruption of the process that runs the sweep itself stops it all.
    """

    def __init__(self) -> None:
        self.sweeper = os.getpid()
        self.failed = 0

    def __call__(self, config: DictConfig) -> float | None:
        from dl_course.train import run_command

        context = HydraConfig.get()
        overrides = _typed(context)
        title = f"job {context.job.num}: {' '.join(overrides)}"
        quiet = bool(os.environ.get("DL_COURSE_QUIET"))
        if not quiet:
            print(f"\n{title}", flush=True)
        try:
            return run_command(config, overrides=overrides, folder=context.runtime.output_dir)
        except SystemExit as stop:
            if os.getpid() == self.sweeper and stop.code in (130, 143):
                raise
            error: Exception = RunError(f"the job left with exit code {stop.code}")
            raise self._report(title, error) from stop
        except Exception as failure:
            raise self._report(title, failure) from failure

    def _report(self, title: str, error: Exception) -> CourseError:
        self.failed += 1
        print(f"{title} failed", file=sys.stderr)
        report(error)
        return error if isinstance(error, CourseError) else RunError(f"{type(error).__name__}: {error}")


def _sweep(hydra: Hydra, loader: Loader, name: str, overrides: list[str], *, dry_run: bool) -> None:
    """Check every job, run them all, and say at the end whether one has failed."""
    overrides = [*overrides, "hydra.mode=MULTIRUN"]
    count = _check_jobs(hydra, loader, name, overrides)
    job = Job()
    scratch = tempfile.mkdtemp() if dry_run else None
    try:
        extra = [f"hydra.sweep.dir={scratch}"] if scratch else []
        hydra.multirun(name, job, [*overrides, *extra], with_log_configuration=True)
    except CourseError as error:
        what = f"{job.failed} of {count} jobs failed" if job.failed and count else f"a job failed: {error}"
        raise RunError(f"the sweep is incomplete: {what}") from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def _check_jobs(hydra: Hydra, loader: Loader, name: str, overrides: list[str]) -> int | None:
    """Compose and check every job of Hydra's basic sweeper before the first starts; how many (None: other sweeper)."""
    from dl_course.check import check

    master = hydra.compose_config(name, overrides, RunMode.MULTIRUN)
    sweeper: Any = master.hydra.sweeper
    if sweeper.get("_target_") != f"{BasicSweeper.__module__}.{BasicSweeper.__name__}":
        return None
    arguments = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    arguments += _typed(master.hydra)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    jobs = BasicSweeper.split_arguments(parsed, None)[0]
    for job in jobs:
        config = loader.load_sweep_config(master, list(job))
        with open_dict(config):
            del config["hydra"]
        try:
            check(config)
        except ConfigError as error:
            raise ConfigError(f"{error}\nin the job {' '.join(job)}; nothing was started") from error
        if OmegaConf.select(config, "trainer.strategy") == "ddp":
            raise ConfigError("ddp would start the whole sweep anew in each process; take trainer.strategy=ddp_fork")
    return len(jobs)
