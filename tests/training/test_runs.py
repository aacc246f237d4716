"""A whole run: what it leaves in its folder, the same numbers again from the folder, and stopping at any point."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dl_course as dl
from dl_course import evaluate
from dl_course.errors import ConfigError, RunError
from dl_course.training import Supervised, load_checkpoint
from dl_course.training.checkpoints import save_atomically

SMALL = ["trainer.max_epochs=3", "model.net.hidden=[11]", "model.net.dropout=0.3", "callbacks.progress=false"]
STEPS = 51  # 17 batches of 64 in each of three epochs


@pytest.fixture(autouse=True)
def quiet_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DL_COURSE_QUIET", "1")


def config(*overrides: str, experiment: str = "mlp_digits"):
    return dl.compose(experiment, [*SMALL, *overrides])


def weights(run: Path, name: str = "resume.ckpt") -> str:
    state = load_checkpoint(run / name)["state_dict"]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state.values())).hexdigest()


def tagged(metrics: dict) -> dict:
    return {tag: value for tag, value in metrics.items() if "/" in tag}


def curve(run: Path, tag: str = "val/loss") -> list[tuple[int, float]]:
    events = EventAccumulator(str(run))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run that nobody disturbed."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("whole"))
    try:
        run = dl.train(config())
        return run.path.resolve(), run.metrics
    finally:
        os.chdir(before)


def test_a_run_folder_holds_what_is_promised(whole):
    path, metrics = whole
    names = {p.name for p in path.iterdir()}
    assert {"config.yaml", "metrics.json", "best.ckpt", "resume.ckpt", "train.log"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    written = json.loads((path / "metrics.json").read_text())
    assert tagged(written) == tagged(metrics)
    assert {"train/loss", "val/loss", "test/loss", "train/accuracy", "val/accuracy", "test/accuracy"} == set(
        tagged(written)
    )
    assert written["steps"] == STEPS
    assert written["epochs"] == 3
    assert written["seed"] == 0
    assert written["parameters"] == 64 * 11 + 11 + 11 * 10 + 10
    assert {"versions", "git", "command"} <= set(written["run"])


def test_events_hold_both_splits_the_rate_the_epoch_and_the_final_metrics(whole):
    path, metrics = whole
    events = EventAccumulator(str(path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "val/loss", "train/accuracy", "val/accuracy", "optimizer/lr", "epoch"} <= tags
    assert [step for step, _ in curve(path)] == [17, 34, 51]
    assert [value for _, value in curve(path, "epoch")] == [1, 2, 3]
    assert curve(path, "final/test/accuracy")[-1][1] == pytest.approx(metrics["test/accuracy"])
    assert events.Tags()["graph"]


def test_the_same_config_gives_the_same_run_whatever_the_workers(whole):
    path, metrics = whole
    again = dl.train(config("data.num_workers=2"))
    assert tagged(again.metrics) == tagged(metrics)
    assert weights(again.path) == weights(path)


def test_another_seed_gives_other_weights(whole):
    assert weights(dl.train(config("seed=1")).path) != weights(whole[0])


@pytest.mark.parametrize("without_metrics", [False, True])
def test_eval_repeats_the_numbers_to_the_last_digit(whole, without_metrics):
    path, metrics = whole
    hidden = path / "metrics.json.hidden"
    if without_metrics:
        (path / "metrics.json").rename(hidden)
    try:
        values = evaluate.run_command(str(path))
    finally:
        if without_metrics:
            hidden.rename(path / "metrics.json")
    assert values == {tag: value for tag, value in metrics.items() if tag.startswith(("val/", "test/"))}
    assert evaluate.run_command(str(path / "best.ckpt"), "test") == {t: v for t, v in values.items() if "test" in t}


def test_eval_measures_the_weights_that_are_in_the_file(whole, tmp_path):
    path, metrics = whole
    content = load_checkpoint(path / "best.ckpt")
    first = next(name for name in content["state_dict"] if name.endswith("weight"))
    content["state_dict"][first][0, 20] += 1.0
    save_atomically(content, tmp_path / "best.ckpt")
    assert evaluate.run_command(str(tmp_path))["test/loss"] != metrics["test/loss"]


def test_load_gives_the_trained_network_in_eval_mode(whole):
    task = dl.load(whole[0])
    assert not task.training
    assert isinstance(task, Supervised)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(task(x), task.net(x))


def test_eval_refuses_what_would_change_the_measurement(whole):
    with pytest.raises(ConfigError, match=r"optimizer\.lr=1"):
        evaluate.run_command(str(whole[0]), "test", ["optimizer.lr=1"])
    with pytest.raises(ConfigError, match="split=tset: expected val or test; did you mean 'test'"):
        evaluate.run_command(str(whole[0]), "tset")


def test_a_dry_run_writes_nothing(tmp_path):
    dl.train(config("debug=dry_run"))
    assert list(tmp_path.iterdir()) == []


def test_init_from_starts_a_new_run_from_the_weights(whole):
    run = dl.train(config(f"init_from={whole[0]}", "optimizer.lr=1e-30", "trainer.max_epochs=1"))
    assert run.path != whole[0]
    assert run.metrics["test/loss"] == pytest.approx(whole[1]["test/loss"], rel=1e-6)
    with pytest.raises(ConfigError, match="holds another model"):
        dl.train(config(f"init_from={whole[0]}", "model.net.hidden=[13]"))


slow = pytest.mark.slow

# -- stopping and going on ---------------------------------------------------------------------------------------------

VARIANTS = {
    "plain": [],
    "workers": ["data.num_workers=2"],
    "schedule and accumulation": ["scheduler=cosine", "trainer.accumulate_grad_batches=2"],
    "a limit in steps": ["trainer.max_steps=45"],
    "moving average": ["regularization.ema=0.9"],
    "augmentation": ["data.augment.rotation=10", "data.augment.translate=1"],
}


GRID = [
    pytest.param(variant, batches, marks=[] if (variant, batches) in {("workers", 30), ("augmentation", 1)} else slow)
    for variant in VARIANTS
    for batches in (1, 17, 30, 43)  # the first of a run, the last of an epoch, two in the midst of one
]


@pytest.mark.parametrize(("variant", "batches"), GRID)
def test_a_signal_at_any_step_saves_and_going_on_is_exact(variant, batches, monkeypatch):
    overrides = VARIANTS[variant]
    reference = dl.train(config(*overrides))

    handed_out = 0
    original = Supervised.training_step

    def interrupted(self, batch, batch_idx):
        nonlocal handed_out
        handed_out += 1
        if handed_out == batches:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Supervised, "training_step", interrupted)
    with pytest.raises(SystemExit) as exit_:
        dl.train(config(*overrides), folder="stopped")
    assert exit_.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.setattr(Supervised, "training_step", original)

    resumed = dl.train(config(*overrides, "resume=stopped"))
    assert weights(resumed.path) == weights(reference.path)
    assert weights(resumed.path, "best.ckpt") == weights(reference.path, "best.ckpt")
    assert tagged(resumed.metrics) == tagged(reference.metrics)
    assert resumed.metrics["steps"] == reference.metrics["steps"]
    for tag in ("train/loss", "val/loss", "optimizer/lr", "epoch"):
        assert curve(resumed.path, tag) == curve(reference.path, tag)


@pytest.mark.parametrize("limit", ["trainer.max_steps=21", "trainer.max_steps=34", "trainer.max_epochs=2"])
def test_a_finished_run_can_be_prolonged_as_if_it_had_been_longer_from_the_start(limit):
    key = limit.split("=")[0]
    longer = f"{key}={45 if 'steps' in key else 3}"
    reference = dl.train(config("scheduler=none", longer))
    short = dl.train(config("scheduler=none", limit))
    prolonged = dl.train(config("scheduler=none", longer, f"resume={short.path}"))
    assert prolonged.path == short.path
    assert prolonged.metrics["steps"] == reference.metrics["steps"]
    assert weights(prolonged.path) == weights(reference.path)


@pytest.mark.parametrize("limit", ["trainer.max_steps=21", "trainer.max_epochs=2"])
def test_a_run_that_died_after_its_last_step_only_has_to_be_measured(limit, monkeypatch):
    reference = dl.train(config(limit))

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["dl_course.train"], "evaluate", dies)
        with pytest.raises(KeyboardInterrupt):
            dl.train(config(limit), folder="died")
    assert {p.name for p in Path("died").glob("*.ckpt")} == {"best.ckpt", "resume.ckpt"}
    assert tagged(dl.train(config(limit, "resume=died")).metrics) == tagged(reference.metrics)


def test_a_finished_run_is_left_alone(whole):
    path, metrics = whole
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    again = dl.train(config(f"resume={path}"))
    assert tagged(again.metrics) == tagged(metrics)
    assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before


def test_resume_under_another_configuration_is_refused_with_the_keys(whole):
    with pytest.raises(ConfigError, match=r"optimizer.lr=0.5 \(was 0.003\)") as error:
        dl.train(config(f"resume={whole[0]}", "optimizer.lr=0.5"))
    assert len(str(error.value).splitlines()) <= 5
    other = dl.compose("softmax_digits", [f"resume={whole[0]}"])
    with pytest.raises(ConfigError, match="experiment"):
        dl.train(other, overrides=["experiment=softmax_digits"])


@pytest.mark.parametrize("limit", ["trainer.max_epochs=2", "trainer.max_steps=50"])
def test_a_limit_below_what_is_done_is_refused_with_both_numbers(whole, limit):
    with pytest.raises(ConfigError, match=rf"{limit}, but the run has (3 epochs|51 steps) already"):
        dl.train(config(f"resume={whole[0]}", limit))


def test_a_group_that_is_typed_on_resuming_leaves_the_runs_limits(whole):
    """`trainer=auto` names the whole group, but no number of epochs: the run is finished, and not prolonged to 60."""
    again = dl.train(dl.compose("mlp_digits", [f"resume={whole[0]}", "trainer=auto"]), overrides=["trainer=auto"])
    assert again.metrics["epochs"] == 3


def test_the_next_commands_can_be_typed(whole, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i % 7},{i % 7 + i % 3}\n" for i in range(50)))
    run = dl.train(dl.compose("linear_csv", ["data.path=t.csv", "data.target=b", "trainer.max_epochs=1"]))
    command = sys.modules["dl_course.train"].next_commands(run)[2][0]
    assert command == "dl-course train experiment=linear_csv data.path=t.csv data.target=b optimizer.lr=0.5"


def test_a_damaged_state_is_named_and_the_older_one_can_be_taken(whole, monkeypatch):
    run = dl.train(config("callbacks.save_every=0")).path
    state = run / "resume.ckpt"
    state.write_bytes(state.read_bytes()[:1000])
    (run / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"resume.ckpt: damaged or incomplete .*take .*resume-previous.ckpt instead"):
        dl.train(config("callbacks.save_every=0", f"resume={run}"))
    again = dl.train(config("callbacks.save_every=0", f"resume={run / 'resume-previous.ckpt'}"))
    assert weights(again.path) == weights(whole[0])


def test_weights_alone_are_no_state_to_resume_from(whole):
    with pytest.raises(ConfigError, match="holds weights only; init_from="):
        dl.train(config(f"resume={whole[0] / 'best.ckpt'}"))


def test_resume_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="resume=latest: no run of mlp_digits"):
        dl.train(config("resume=latest"))
    with pytest.raises(ConfigError, match="not a run folder"):
        dl.train(config("resume=nowhere"))


@pytest.mark.slow
@pytest.mark.parametrize(("step", "workers"), [(2, 0), (20, 0), (33, 2), (49, 0)])
def test_kill_9_and_resume_latest_ends_with_the_same_weights(step, workers, tmp_path, whole):
    """A child process is killed without warning at a step; what it had saved is enough to end exactly alike."""
    program = f"""
import os, signal, sys
import dl_course as dl
from dl_course.training import Supervised
original = Supervised.training_step
def deadly(self, batch, batch_idx):
    if self.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch, batch_idx)
Supervised.training_step = deadly
dl.train(dl.compose("mlp_digits", {[*SMALL, "callbacks.save_every=0", f"data.num_workers={workers}"]!r}))
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = dl.train(config("resume=latest", "callbacks.save_every=0", f"data.num_workers={workers}"))
    assert run.path.parent.name == "mlp_digits"
    assert len(list(run.path.parent.iterdir())) == 1
    assert weights(run.path) == weights(whole[0])
    assert tagged(run.metrics) == tagged(whole[1])
    assert curve(run.path) == curve(whole[0])


@pytest.mark.slow
def test_two_processes_train_like_one():
    """The same batches, split between two processes, whose gradients are averaged by samples."""
    without_dropout = ["model.net.dropout=0", "data.batch_size=63"]  # the last batch has 7 samples: 4 and 3
    one = dl.train(config(*without_dropout))
    two = dl.train(config(*without_dropout, "trainer=ddp", "trainer.strategy=ddp_fork", "trainer.accelerator=cpu"))
    assert two.metrics["steps"] == one.metrics["steps"]
    for tag, value in tagged(one.metrics).items():
        assert two.metrics[tag] == pytest.approx(value, abs=1e-6)
