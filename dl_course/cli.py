"""The command `dl-course`. Imports nothing heavy before it is needed: help and list answer at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from dl_course import __version__
from dl_course.errors import ConfigError, report, suggest

HELP = """\
A deep-learning course that runs.

usage: dl-course COMMAND …        (or: python -m dl_course COMMAND …)

  list  [words] [--json]                      the experiments: what they show, what they reach, how long they take
  train [experiment=NAME] [key=value …]       train, then print the test metrics and the run folder
  eval  RUN_OR_CHECKPOINT [split=test|val]    measure a trained model again, from its folder alone
  completion bash|zsh|fish                    a script that lets the shell complete all of this

  -h, --help     this text; `dl-course COMMAND --help` says more about one command
  --version      the version

examples:
  dl-course train                                           the default: mlp_digits, in seconds, without a download
  dl-course train experiment=softmax_digits optimizer.lr=0.1
  dl-course list regression
"""

TRAIN_HELP = """\
Train an experiment, evaluate its best checkpoint, print the metrics and the run folder.

usage: dl-course train [experiment=NAME] [key=value …] [options]

knobs (all of them: --cfg job):
  experiment=NAME             what to run (`dl-course list`); default mlp_digits
  trainer.max_epochs=20       trainer=auto|cpu|gpu|ddp
  optimizer=NAME              adagrad, adam, adamw, lbfgs, rmsprop or sgd, in place of the experiment's
  optimizer.lr=0.001          the learning rate
  scheduler=NAME              cosine, exponential, linear, none, onecycle, step or warmup
  data.batch_size=64          data.root=FOLDER: where the data sets lie
  regularization.l2=0.001     regularization.l1
  seed=0  threads=1           precision=32-true|bf16-mixed|16-mixed|64-true
  resume=latest               or a run folder: continue there
  init_from=RUN               start a new run from the weights of another

options:
  --dry-run                   compose, check and build everything, print the model, write nothing
  -q, --quiet                 no progress bar, no table
  -m, --multirun              one job for each combination: -m optimizer.lr=0.1,0.01 seed=0,1,2
  --cfg job [--resolve]       print the config instead of running it; -p PACKAGE prints a part
  --info [WHAT]               how the config came about; --hydra-help: Hydra's own options
  -cd, --config-dir DIR       a folder with options of your own: DIR/experiment/mine.yaml
  -h, --help                  this text

examples:
  dl-course train experiment=mlp_mnist data.root=~/data
  dl-course train experiment=linear_csv data.path=houses.csv data.target=price
  dl-course train -m experiment=mlp_digits optimizer=sgd,adam optimizer.lr=0.01,0.001
"""

EVAL_HELP = """\
Measure a trained model again: the same numbers as after training, from the folder alone.

usage: dl-course eval RUN_OR_CHECKPOINT [split=test|val] [key=value …]

  split=test|val    which part of the data; default both
  data.root=FOLDER  where the data sets lie now
  -q, --quiet       no table

example: dl-course eval runs/mlp_digits/20260101-120000-0
"""

LIST_HELP = """\
The experiments, those that match all words.

usage: dl-course list [words] [--json]

examples: dl-course list mlp        dl-course list embedded digits        dl-course list --json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 at run time, 2 for wrong input, 130 and 143 for signals."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `dl-course list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return report(error)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    name, rest = words[0], words[1:]
    if name == "--version":
        print(f"dl-course {__version__}")
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"there is no command '{name}'{suggest(name, COMMANDS)}\ncommands: {', '.join(COMMANDS)}")
    return COMMANDS[name](rest)


def _train(words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        print(TRAIN_HELP, end="")
        return 0
    from dl_course.launch import launch

    return launch(words)


def _eval(words: list[str]) -> int:
    targets, split, overrides = [], None, []
    for word in words:
        key, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            print(EVAL_HELP, end="")
            return 0
        elif word in ("-q", "--quiet"):
            os.environ["DL_COURSE_QUIET"] = "1"
        elif word.startswith("-"):
            raise ConfigError(f"eval has no option {word}{suggest(word, ['--help', '--quiet'])}")
        elif key == "split" and equals:
            split = value
        elif equals and not os.path.exists(word):
            overrides.append(word)
        else:
            targets.append(word)
    if len(targets) != 1:
        from dl_course.completion import run_folders

        what = f"one run folder or checkpoint, got {' '.join(targets)}" if targets else "a run folder or a checkpoint"
        newest = next(iter(run_folders()), "runs/mlp_digits/<run>")
        raise ConfigError(f"eval takes {what}\nexample: dl-course eval {newest}")
    from dl_course.environment import prepare

    prepare("cpu" if "trainer.accelerator=cpu" in overrides else "auto")
    from dl_course.evaluate import run_command

    run_command(targets[0], split, overrides)
    return 0


def _list(words: list[str]) -> int:
    from dl_course.catalog import experiment_names, experiments

    if "-h" in words or "--help" in words:
        print(LIST_HELP, end="")
        return 0
    options = [word for word in words if word.startswith("-")]
    if unknown := [option for option in options if option != "--json"]:
        raise ConfigError(f"list has no option {unknown[0]}{suggest(unknown[0], ['--json', '--help'])}")
    searched = [word for word in words if word not in options]
    found = experiments(*searched)
    if options:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(experiment) for experiment in found], indent=2, ensure_ascii=False))
        return 0
    if not found:
        near = next(filter(None, (suggest(word, experiment_names()) for word in searched)), "")
        raise ConfigError(f"no experiment matches '{' '.join(searched)}'{near}\n`dl-course list` shows them all")
    from rich.console import Console
    from rich.table import Table

    table = Table("experiment", "topic", "about", "model", "data", "should reach", "takes about")
    table.columns[0].no_wrap = True
    for e in found:
        reaches = ", ".join(f"{metric} {value:g}" for metric, value in e.reaches.items())
        takes = f"{60 * e.minutes:.0f} s" if e.minutes < 1 else f"{e.minutes:g} min"
        table.add_row(e.name, e.topic, e.about, e.model, f"{e.data} ({e.source})", reaches, takes)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _completion(words: list[str]) -> int:
    from dl_course import completion

    if words[:1] == ["query"]:
        print("\n".join(completion.complete(words[1:], COMMANDS)))
        return 0
    shell = words[0] if words else ""
    if shell not in completion.SCRIPTS:
        near = suggest(shell, completion.SCRIPTS)
        raise ConfigError(f"completion takes bash, zsh or fish, got '{shell}'{near}\n{completion.USAGE}")
    print(completion.SCRIPTS[shell])
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "list": _list,
    "completion": _completion,
}


if __name__ == "__main__":
    sys.exit(main())
