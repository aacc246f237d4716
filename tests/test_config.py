"""Composition: one config from the command and from Python; a named option replaces the whole node."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import dl_course as dl
from dl_course.catalog import CONFIGS, experiment_names, experiments
from dl_course.check import check
from dl_course.cli import main
from dl_course.config import compose, short_hash
from dl_course.errors import ConfigError

TOP_LEVEL = {
    *("experiment", "data", "model", "optimizer", "scheduler", "regularization", "trainer", "seed", "threads"),
    *("precision", "resume", "init_from", "debug", "callbacks", "logger"),
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with an experiment of the user's own: SGD with momentum on a schedule, and fewer rows of cars."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - linear_cars\n"
        "  - override /optimizer: sgd\n"
        "  - override /scheduler: step\n"
        "optimizer: {lr: 0.25, momentum: 0.9, nesterov: true}\n"
        "scheduler: {epochs: 3}\n"
        "data: {n: 123}\n"
        "trainer: {max_epochs: 7}\n"
    )
    return tmp_path


def as_dict(config):
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("name", experiment_names())
def test_every_shipped_experiment_composes_and_checks(name):
    config = compose(name, ["data.path=x.csv", "data.target=y"] if name.endswith("_csv") else ["data.root=x"])
    assert set(config) == TOP_LEVEL
    assert config.experiment.name == name
    assert {"topic", "about", "data", "reaches", "minutes"} <= config.experiment.keys()
    check(config)


def test_options_of_the_shipped_groups_are_complete_in_themselves(mine):
    for group in ("optimizer", "scheduler"):
        for path in (CONFIGS / group).glob("*.yaml"):
            if path.stem == "none":
                continue
            config = compose("mine", [f"{group}={path.stem}"], config_dir=mine)
            assert as_dict(config[group]) == as_dict(OmegaConf.load(path))
            check(config)


def test_an_experiment_sets_values_of_the_option_that_it_selects(mine):
    config = compose("mine", config_dir=mine)
    assert (config.optimizer.lr, config.optimizer.momentum, config.scheduler.epochs) == (0.25, 0.9, 3)
    assert (config.data.n, config.trainer.max_epochs) == (123, 7)


def test_a_named_optimizer_replaces_the_whole_node(mine):
    adam = compose("mine", ["optimizer=adam"], config_dir=mine)
    assert as_dict(adam.optimizer) == as_dict(OmegaConf.load(CONFIGS / "optimizer" / "adam.yaml"))
    sgd = compose("mine", ["optimizer=sgd"], config_dir=mine)  # even where it is the experiment's own option
    assert as_dict(sgd.optimizer) == as_dict(OmegaConf.load(CONFIGS / "optimizer" / "sgd.yaml"))
    assert sgd.scheduler.epochs == 3  # the other nodes stay


def test_a_named_scheduler_or_data_set_replaces_the_whole_node(mine):
    assert compose("mine", ["scheduler=none"], config_dir=mine).scheduler is None
    assert "epochs" not in compose("mine", ["scheduler=cosine"], config_dir=mine).scheduler
    assert "n" not in compose("mine", ["data=diabetes"], config_dir=mine).data
    assert compose("mine", ["data=cars"], config_dir=mine).data.n != 123


def test_values_typed_beside_the_option_are_kept(mine):
    config = compose("mine", ["optimizer.lr=0.5", "optimizer=adam"], config_dir=mine)
    assert config.optimizer.lr == 0.5
    assert compose("mine", ["optimizer={lr: 0.5}"], config_dir=mine).optimizer.momentum == 0.9


def test_a_named_trainer_keeps_what_the_experiment_set(mine):
    config = compose("mine", ["trainer=cpu"], config_dir=mine)
    assert (config.trainer.max_epochs, config.trainer.accelerator) == (7, "cpu")


def test_compose_works_many_times_with_and_without_hydra_in_any_folder(tmp_path, monkeypatch):
    first = compose("mlp_moons", ["seed=3"])
    monkeypatch.chdir(tmp_path)
    assert compose("mlp_moons", ["seed=3"]) == first
    assert not GlobalHydra.instance().is_initialized()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "app.yaml").write_text("x: 1\n")
    with initialize_config_dir(str(tmp_path / "theirs"), version_base="1.3"):
        assert compose("mlp_moons", ["seed=3"]) == first
        assert hydra_compose("app").x == 1  # their application goes on
    assert list(tmp_path.iterdir()) == [tmp_path / "theirs"]


def test_the_command_composes_the_same_config(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["optimizer=sgd", "optimizer.lr=0.3"]
    assert main(["train", "experiment=softmax_digits", *words, "--cfg", "job", "--resolve"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert as_dict(shown) == as_dict(compose("softmax_digits", words))
    assert main(["train", "experiment=softmax_digits", *words, "--cfg", "job"]) == 0
    assert as_dict(OmegaConf.create(capsys.readouterr().out)) == as_dict(compose("softmax_digits", words))
    assert not list(tmp_path.iterdir())


def test_a_checkout_and_a_wheel_find_their_configs(tmp_path):
    """The packaged folder wins where there is one; outside the checkout it is the only one."""
    package = tmp_path / "dl_course"
    package.mkdir()
    for file in ("__init__.py", "catalog.py", "environment.py", "errors.py"):
        (package / file).write_text((Path(dl.__file__).parent / file).read_text())
    (package / "configs" / "experiment").mkdir(parents=True)
    (package / "configs" / "experiment" / "packed.yaml").write_text("x: 1\n")
    code = "from dl_course.catalog import experiment_names; print(experiment_names())"
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['packed']"


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("mlp_digit", [], "no experiment is named 'mlp_digit'; did you mean 'mlp_digits'?"),
        ("mlp_digits", ["optimizer=admm"], "optimizer has no option 'admm'; did you mean 'adam'?"),
        ("mlp_digits", ["optimiser=adam"], "did you mean 'optimizer'?"),
        ("mlp_digits", ["optimizer=null"], "names no option of optimizer"),
        ("mlp_digits", ["trainer=[1]"], "names no option of trainer"),
        ("mlp_digits", ["optimizer=[1,[2]]"], "names no option of optimizer"),
        ("mlp_digits", ["optimizr.lr=1"], "did you mean 'optimizer'?"),
        ("mlp_digits", ["optimizer.rl=1"], "optimizer has no key 'rl'; did you mean 'optimizer.lr'?"),
        ("mlp_digits", ["lr=1"], "did you mean 'optimizer.lr'?"),
        ("mlp_digits", ["model.net.hiden=[3]"], "model.net has no key 'hiden'; did you mean 'hidden'?"),
        ("mlp_digits", ["scheduler=none", "scheduler.final=0.1"], "scheduler is null"),
        ("mlp_digits", ["mlp_moons"], "did you mean 'experiment=mlp_moons'?"),
        ("mlp_digits", ["seed"], "'seed' is no key=value; type seed=…"),
        ("mlp_digits", ["seed=1,2"], "add -m"),
        ("mlp_digits", ["optimizer.lr=[1"], "cannot read 'optimizer.lr=[1'"),
        ("mlp_digits", ["+optimizer.lr=1"], "already at 'optimizer.lr'"),
        ("mlp_digits", ["~optimizer.lrr"], "did you mean 'lr'?"),
        ("mlp_digits", ["seed.x=1"], "seed is 0"),
    ],
)
def test_what_cannot_be_composed_is_explained_in_five_lines(name, overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(name, overrides)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_a_broken_file_and_a_missing_folder_of_the_user_are_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text("# @package _global_\nseed: [1\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        compose("broken", config_dir=tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        compose("mlp_digits", config_dir=tmp_path / "nowhere")


def test_the_catalog_describes_what_composition_yields():
    for experiment in experiments():
        config = compose(experiment.name)
        choice = OmegaConf.load(CONFIGS / "data" / f"{experiment.data}.yaml")
        assert config.data._target_ == choice._target_
        assert config.experiment.data == experiment.source
        assert config.experiment.minutes == experiment.minutes
        assert OmegaConf.to_container(config.experiment.reaches) == experiment.reaches
    found = {e.name for e in experiments("digits", "embedded")}
    assert {"mlp_digits", "softmax_digits", "svm_digits"} <= found
    assert "mlp_moons" not in found


def test_short_hash_names_a_job_by_its_overrides():
    assert short_hash("a=1,b=2") == short_hash("a=1,b=2") != short_hash("a=1,b=3")
    assert short_hash("") == "e3b0c442"  # SHA-256 of nothing


def test_the_package_is_lazy_and_train_stays_a_function():
    code = (
        "import sys, dl_course as dl\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'rich'} & set(sys.modules), 'heavy import'\n"
        "assert {'compose', 'train', 'load', 'experiments'} <= set(dir(dl))\n"
        "assert dl.experiments('moons')[0].name == 'mlp_moons'\n"
        "assert dl.compose('mlp_moons').experiment.name == 'mlp_moons'\n"
        "import os, dl_course.environment as environment\n"
        "before = dict(os.environ)\n"
        "environment.prepare()\n"
        "assert dict(os.environ) == before, 'the environment was not prepared on import'\n"
        "from dl_course.train import Run\n"
        "assert callable(dl.train) and dl.train.__name__ == 'train' and callable(dl.load)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dl.nothing  # type: ignore[attr-defined]
