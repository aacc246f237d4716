"""Errors that help: at most five lines, what came and what was expected, and an exit code that tells the truth."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import traceback
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


def report(error: Exception) -> int:
    """Print what went wrong in at most five lines and return the exit code; the traceback with HYDRA_FULL_ERROR=1."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error, file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print("\n".join(_sentences(error)[:5]), file=sys.stderr)
    return getattr(error, "exit_code", 1)


def _sentences(error: Exception) -> list[str]:
    if isinstance(error, CourseError):
        return f"error: {error}".splitlines()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return [f"error: the disk is full{_at(error)}"]
    if isinstance(error, PermissionError):
        return [f"error: no permission{_at(error)}"]
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return [f"error: cannot write, the disk is read-only{_at(error)}"]
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    hint = "the traceback: set HYDRA_FULL_ERROR=1 and run it again"
    return [f"error: {type(error).__name__}: {lines[0] if lines else 'no message'}", *lines[1:3], hint]


def _at(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""
