"""The command line: exit codes, help without heavy imports, errors of at most five lines."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dl_course
from dl_course.catalog import experiment_names
from dl_course.cli import COMMANDS, main


@pytest.fixture(autouse=True)
def logging_as_before():
    """`--info` lets the root logger write to the terminal, which in a test is gone afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own; what -q sets is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DL_COURSE_QUIET", "")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


def run(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **more)


@pytest.mark.parametrize(
    "words", [["--help"], [], ["list"], ["list", "--json"], ["train", "--help"], ["eval", "--help"]]
)
def test_help_and_list_import_nothing_heavy(words):
    shown = run("-X", "importtime", "-m", "dl_course", *words)
    assert shown.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "dl_course.cli" in imported
    assert not {"torch", "lightning", "numpy", "hydra", "omegaconf", "pydantic"} & imported


def test_help_names_every_command_and_no_argument_is_help(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == shown
    assert all(f"\n  {name}" in shown for name in COMMANDS)
    for name in ("train", "eval", "list"):
        assert main([name, "--help"]) == 0
        assert f"usage: dl-course {name}" in capsys.readouterr().out


def test_version(capsys):
    for words in (["--version"], ["train", "--version"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"dl-course {dl_course.__version__}\n"


def test_help_of_train_names_the_options_that_there_are(capsys):
    """The lists of options in the help text are those of the groups."""
    from dl_course.catalog import CONFIGS

    main(["train", "--help"])
    shown = capsys.readouterr().out
    for group in ("optimizer", "scheduler", "trainer"):
        for path in (CONFIGS / group).glob("*.yaml"):
            assert path.stem in shown, f"{group}={path.stem}"


def test_list_filters_by_all_words(capsys):
    assert main(["list"]) == 0
    whole = capsys.readouterr().out
    assert all(name in whole for name in experiment_names())
    assert main(["list", "DIGITS", "svm"]) == 0
    shown = capsys.readouterr().out
    assert "svm_digits" in shown
    assert "softmax_digits" not in shown
    assert main(["list", "moons", "--json"]) == 0
    (moons,) = json.loads(capsys.readouterr().out)
    assert moons["name"] == "mlp_moons"
    assert moons["model"] == "MLP"
    assert moons["reaches"]["test/accuracy"] > 0.9
    assert main(["list", "no such thing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


BAD_INPUT = [
    # commands and options
    (["trian"], "there is no command 'trian'; did you mean 'train'?"),
    (["list", "--jsn"], "did you mean '--json'?"),
    (["list", "mlp_digit_"], "did you mean 'mlp_digits'?"),
    (["train", "--dryrun"], "did you mean '--dry-run'?"),
    (["train", "--cfg", "jobs"], "invalid choice: 'jobs'"),
    (["train", "--resolve"], "--resolve goes with --cfg"),
    (["train", "--cfg", "job", "-m"], "do not go together"),
    (["train", "--experimental-rerun", "x.pickle"], "loads a pickle"),
    (["train", "--config-dir", "nowhere"], "no such folder"),
    (["completion"], "bash, zsh or fish"),
    (["completion", "bsh"], "did you mean 'bash'?"),
    # composition
    (["train", "experiment=mlp_digit"], "did you mean 'mlp_digits'?"),
    (["train", "mlp_digits"], "did you mean 'experiment=mlp_digits'?"),
    (["train", "optimizer=adm"], "did you mean 'adam'?"),
    (["train", "optimiser=adam"], "did you mean 'optimizer'?"),
    (["train", "model.net.hiden=[3]"], "did you mean 'hidden'?"),
    (["train", "optimizer=sgd,adam"], "add -m"),
    (["train", "--cfg", "job", "sed=1"], "did you mean 'seed'?"),
    (["train", "--info", "defaults", "experiment=nope"], "no experiment is named 'nope'"),
    # values
    (["train", "model.net.activation=rellu"], "did you mean 'relu'?"),
    (["train", "trainer.max_epochs=three"], "expected an integer >= 1"),
    (["train", "data.batch_size=-1"], "expected an integer >= 1"),
    (["train", "optimizer.lr=0"], "expected a number > 0"),
    (["train", "--dry-run", "seed=-1"], "expected an integer >= 0"),
    (["train", "data.seed=${sed}"], "data.seed refers to ${sed}, which is not in the config; did you mean 'seed'?"),
    (
        ["train", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=3"],
        "trainer: check_val_every_n_epoch=3 is never",
    ),
    (["train", "model=null"], "model=null: expected a mapping with a _target_"),
    (["train", "experiment=[mlp_moons]"], "experiment.name=null: expected text"),
    (["train", "-p", "optimizer"], "--package goes with --cfg"),
    (["train", "hydra.sweep.dri=x"], "hydra.sweep has no key 'dri'; did you mean 'dir'?"),
    # data
    (["train", "experiment=mlp_mnist", "data.root=text.txt"], "text.txt"),
    (["train", "experiment=mlp_csv"], "data.path has no value"),
    (["train", "experiment=mlp_csv", "data.path=no.csv", "data.target=y"], "no.csv"),
    (["train", "experiment=mlp_folder", "data.root=nowhere"], "nowhere"),
    # sweeps: nothing starts if one job is wrong
    (["train", "-m", "optimizer=sgd,adm"], "did you mean 'adam'?"),
    (["train", "-m", "optimizer.lr=0.1,-1"], "in the job optimizer.lr=-1; nothing was started"),
    (["train", "-m", "seed=0,1", "trainer=ddp"], "ddp_fork"),
    # runs
    (["train", "resume=nowhere"], "nowhere"),
    (["train", "init_from=nowhere"], "nowhere"),
    (["eval"], "eval takes a run folder or a checkpoint"),
    (["eval", "a", "b"], "got a b"),
    (["eval", "--quite", "a"], "did you mean '--quiet'?"),
    (["eval", "nowhere"], "nowhere"),
    (["eval", "text.txt"], "text.txt"),
]


@pytest.mark.parametrize(("words", "expected"), BAD_INPUT, ids=[" ".join(words) for words, _ in BAD_INPUT])
def test_wrong_input_is_explained_in_five_lines_with_exit_code_2(words, expected, capsys, empty_folder):
    (empty_folder / "text.txt").write_text("no checkpoint")
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert expected in shown.err
    assert shown.err.startswith("error: ")
    assert len(shown.err.splitlines()) <= 5
    assert "Traceback" not in shown.err
    assert [path.name for path in empty_folder.iterdir()] == ["text.txt"], "something was left behind"


def test_the_traceback_is_there_for_those_who_ask(capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main(["train", "optimizer=adm"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_exit_code_reaches_the_shell():
    assert run("-m", "dl_course", "train", "experiment=nope").returncode == 2
    assert run("-m", "dl_course", "--version").stdout == f"dl-course {dl_course.__version__}\n"


def test_a_reader_that_leaves_early_is_no_error():
    shown = run("-c", "import os, sys; os.close(1); os.dup2(os.pipe()[1], 1); from dl_course.cli import main; main([])")
    assert "Traceback" not in shown.stderr
    command = f"{sys.executable} -m dl_course list | true"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in shown.stderr
    assert "Exception" not in shown.stderr


# -- what a run raises -----------------------------------------------------------------------------------------------


@pytest.fixture
def job(monkeypatch):
    """Replaces training by a function; returns what each call was given."""
    import dl_course.train  # noqa: F401

    calls: list = []

    def install(act):
        def run_command(config, overrides=None, folder=None):
            calls.append((config, overrides, folder))
            return act(config)

        monkeypatch.setattr(sys.modules["dl_course.train"], "run_command", run_command)
        return calls

    return install


def raising(error):
    def act(config):
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (OSError(28, "No space left on device", "runs/x"), 1, "error: the disk is full: runs/x"),
        (PermissionError(13, "Permission denied", "runs/x"), 1, "error: no permission: runs/x"),
        (OSError(30, "Read-only file system", "runs"), 1, "error: cannot write, the disk is read-only: runs"),
        (RuntimeError("first\nsecond\nthird\nfourth"), 1, "error: RuntimeError: first\nsecond\nthird\n"),
        (ValueError(""), 1, "error: ValueError: no message"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_trouble_at_run_time(job, capsys, error, code, expected):
    job(raising(error))
    assert main(["train"]) == code
    shown = capsys.readouterr().err
    assert expected in shown
    assert len(shown.splitlines()) <= 5
    assert "Error executing job" not in shown


def test_the_exit_codes_of_signals_pass_through(job):
    for code in (130, 143):
        job(raising(SystemExit(code)))
        with pytest.raises(SystemExit) as stopped:
            main(["train"])
        assert stopped.value.code == code


def test_flags_may_stand_anywhere_and_reach_the_config(job, monkeypatch):
    calls = job(lambda config: None)
    assert main(["train", "seed=3", "--dry-run", "threads=2"]) == 0
    ((config, overrides, folder),) = calls
    assert (config.seed, config.threads, config.debug, folder) == (3, 2, "dry_run", None)
    assert overrides == ["seed=3", "threads=2", "debug=dry_run"]
    import os

    assert main(["train", "-q"]) == 0
    assert os.environ["DL_COURSE_QUIET"] == "1"


def test_options_of_the_user_in_a_folder(job, empty_folder):
    (empty_folder / "mine" / "experiment").mkdir(parents=True)
    (empty_folder / "mine" / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults: [mlp_moons]\nseed: 7\n"
    )
    calls = job(lambda config: None)
    assert main(["train", "--config-dir", "mine", "experiment=own"]) == 0
    assert (calls[0][0].experiment.name, calls[0][0].seed) == ("own", 7)


def test_showing_the_config_leaves_nothing_behind(capsys, empty_folder):
    for words in (["--cfg", "job"], ["--cfg", "all"], ["--info", "defaults-tree"], ["--hydra-help"]):
        assert main(["train", *words]) == 0
        assert capsys.readouterr().out
    assert main(["train", "--cfg", "job", "-p", "optimizer", "optimizer=sgd"]) == 0
    assert "dl_course.optim.sgd" in capsys.readouterr().out
    assert not list(empty_folder.iterdir())


def test_a_dry_run_builds_everything_and_leaves_nothing_behind(capsys, empty_folder):
    assert main(["train", "--dry-run", "experiment=softmax_digits"]) == 0
    shown = capsys.readouterr().out
    assert "650 parameters" in shown  # 64·10 + 10
    assert not list(empty_folder.iterdir())
    assert main(["train", "--dry-run", "-m", "experiment=softmax_digits", "seed=0,1"]) == 0
    assert capsys.readouterr().out.count("650 parameters") == 2
    assert not list(empty_folder.iterdir())


# -- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_sweep_runs_one_job_per_combination_each_in_its_own_folder(job, empty_folder):
    calls = job(lambda config: 0.5)
    assert main(["train", "-m", "optimizer=sgd,adam", "seed=0,1"]) == 0
    assert [(c.optimizer._target_.rpartition(".")[2], c.seed) for c, _, _ in calls] == [
        ("sgd", 0), ("sgd", 1), ("adam", 0), ("adam", 1),
    ]  # fmt: skip
    assert all("momentum" not in c.optimizer for c, _, _ in calls[2:]), "a key of the old optimiser is left"
    folders = [Path(folder) for _, _, folder in calls]
    assert len(set(folders)) == 4
    assert all(folder.parent.parent == empty_folder / "runs" / "sweeps" for folder in folders)


def test_a_folder_is_named_by_its_overrides(job, empty_folder):
    calls = job(lambda config: 0.5)
    assert main(["train", "-m", "seed=0,1", "hydra.sweep.dir=runs/sweeps/first"]) == 0
    assert main(["train", "-m", "seed=1", "hydra.sweep.dir=runs/sweeps/second"]) == 0
    names = [Path(folder).name for _, _, folder in calls]
    assert names[0] != names[1] == names[2]
    assert len(names[0]) == 8


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(0)])
def test_a_failing_job_does_not_stop_the_others_and_the_sweep_tells(job, capsys, error):
    calls = job(lambda config: raising(error)(config) if config.seed == 1 else 0.5)
    assert main(["train", "-m", "seed=0,1,2"]) == 1
    assert [config.seed for config, _, _ in calls] == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "job 1: seed=1 failed" in shown
    assert "the sweep is incomplete: 1 of 3 jobs failed" in shown


def test_a_signal_stops_the_whole_sweep(job):
    calls = job(raising(SystemExit(143)))
    with pytest.raises(SystemExit) as stopped:
        main(["train", "-m", "seed=0,1,2"])
    assert stopped.value.code == 143
    assert len(calls) == 1


def test_a_sweep_can_be_an_experiment_file(job, empty_folder):
    (empty_folder / "mine" / "experiment").mkdir(parents=True)
    (empty_folder / "mine" / "experiment" / "three.yaml").write_text(
        "# @package _global_\ndefaults: [mlp_moons]\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2,3'}}}\n"
    )
    calls = job(lambda config: None)
    assert main(["train", "--config-dir", "mine", "experiment=three"]) == 0
    assert [config.seed for config, _, _ in calls] == [1, 2, 3]


@pytest.mark.slow
def test_help_and_list_answer_within_half_a_second():
    """The quickest of five, so that a busy machine does not decide."""
    for words in (["--help"], ["list"]):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run("-m", "dl_course", *words)
            times.append(time.perf_counter() - start)
        assert min(times) <= 0.5, f"{words}: {min(times):.2f} s"
