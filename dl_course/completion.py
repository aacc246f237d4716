"""Shell completion: commands, experiments, options and keys (by Hydra's own completion), and run folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

USAGE = 'bash and zsh: eval "$(dl-course completion bash)"   fish: dl-course completion fish | source'

# Every script hands over the line up to the cursor and gets whole words back, one a line.
_BASH = r"""
_dl_course_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" word typed="" breaks="" found=()
    word="${line##* }"
    # Where the shell breaks words at = or :, it wants only what comes after the last of them.
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+="="
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=":"
    if [[ -n $breaks && $word == *[$breaks]* ]]; then typed="${word%"${word##*[$breaks]}"}"; fi
    while IFS= read -r; do found+=("${REPLY#"$typed"}"); done < <("$1" completion query "$line" 2>/dev/null)
    if [[ ${#found[@]} == 1 && ${found[0]} != *[=./] ]]; then found[0]+=" "; fi
    COMPREPLY=("${found[@]}")
}
complete -o nospace -F _dl_course_completion dl-course"""

_ZSH = r"""
_dl_course_completion() {
    local -a found
    found=(${(f)"$(dl-course completion query "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    compadd -Q -S '' -a found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _dl_course_completion dl-course"""

_FISH = r"""
complete -c dl-course -f -a '(dl-course completion query (commandline -cp) 2>/dev/null)'"""

SCRIPTS = {"bash": _BASH.strip(), "zsh": _ZSH.strip(), "fish": _FISH.strip()}


def complete(arguments: list[str], commands: Iterable[str]) -> list[str]:
    """The words that may stand at the end of the line `arguments[0]`; none if anything goes wrong."""
    line = arguments[0] if arguments else ""
    words = line.split()
    current = words.pop() if words and not line[-1].isspace() else ""
    found: Iterable[str] = ()
    with contextlib.suppress(Exception, SystemExit):
        if len(words) < 2:
            found = ["--help", "--version"] if current.startswith("-") else commands
        elif words[1] == "train":
            found = _train(words[2:], current)
        elif words[1] == "eval":
            given = any("=" not in word and not word.startswith("-") for word in words[2:])
            found = [*([] if given else _places(current)), "split=test", "split=val", "data.root=", "--quiet", "--help"]
        elif words[1] == "list":
            from dl_course.catalog import experiments

            found = [*sorted({e.topic for e in experiments()}), "--json", "--help"]
        elif words[1] == "completion":
            found = SCRIPTS
        found = [word for word in dict.fromkeys(found) if word.startswith(current)]
    return list(found)


def _train(words: list[str], current: str) -> Iterable[str]:
    from dl_course.launch import parser

    if current.startswith("-"):
        actions = parser()._actions
        return sorted(option for action in actions for option in action.option_strings if option.startswith("--"))
    if words and words[-1] in ("--config-dir", "-cd"):
        return _paths(current)
    key, equals, value = current.partition("=")
    if equals and key in ("resume", "init_from"):
        latest = ["latest"] if key == "resume" else []
        return [f"{key}={place}" for place in [*latest, *_places(value)]]
    return _hydra(words, current)


def _hydra(words: list[str], current: str) -> list[str]:
    """What Hydra's completion says: groups, their options, keys and their present values."""
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin

    from dl_course.config import PRIMARY, config_loader
    from dl_course.launch import parser

    given = parser().parse_intermixed_args(words)
    plugin = DefaultCompletionPlugin(config_loader(given.config_dir))
    line = " ".join([*(["-m"] if given.multirun else []), *given.overrides, current])
    found = plugin._query(config_name=PRIMARY, line=line)
    inner = not current.lstrip("+~").startswith("hydra")
    return [word for word in found if not (inner and word.lstrip("+~").startswith("hydra")) and not _hidden(word)]


def _hidden(word: str) -> bool:
    """Whether the word ends in one of Hydra's own keys, `_target_` and the like."""
    return word.rstrip("=.").rpartition(".")[2].startswith("_")


def run_folders() -> list[str]:
    """The run folders under `runs/`, the newest first."""
    found = [path.parent for path in Path("runs").glob("**/config.yaml") if len(path.parts) <= 5]
    return [str(path) for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def _places(current: str) -> list[str]:
    """Runs, and whatever path has been begun."""
    return [*run_folders(), *(_paths(current) if current else [])]


def _paths(current: str) -> list[str]:
    """The paths that begin so; folders end in a slash."""
    folder, start = os.path.split(current)
    with contextlib.suppress(OSError):
        entries = [entry for entry in os.scandir(folder or ".") if entry.name.startswith(start)]
        return sorted(os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "") for entry in entries)
    return []
