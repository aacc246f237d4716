"""Errors that help: at most five lines, what came and what was expected, and an exit code that tells the truth."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CourseError(Exception):
    """An error that the user can act on: the command prints its message, no traceback, and exits with `exit_code`."""

    exit_code = 1


class ConfigError(CourseError):
    """Wrong input: a configuration, a name, a path, or a file that is no checkpoint. Exit code 2."""

    exit_code = 2


class RunError(CourseError):
    """Trouble while running: NaN, a full disk, a damaged checkpoint, a worker that died. Exit code 1."""

    exit_code = 1


def suggest(word: str, candidates: Iterable[str]) -> str:
    """The end of a sentence: "; did you mean 'adam'?", or "" where no candidate is near."""
    near = difflib.get_close_matches(str(word), [str(c) for c in candidates], n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
