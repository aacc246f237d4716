"""Statistics come from train only and travel with the checkpoint; files are prepared once, whoever tries."""

import os
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from dl_course.data import BreastCancer, CarPrices, Diabetes, Digits, Split, TwoMoons
from dl_course.data import module as module_file
from dl_course.data.module import (
    DataModule,
    check_files,
    data_root,
    marked_files,
    normalise,
    prepare_once,
    sha256,
    split_indices,
)
from dl_course.errors import ConfigError

EMBEDDED = [CarPrices, Diabetes, BreastCancer, TwoMoons, Digits]


@pytest.mark.parametrize("cls", EMBEDDED)
def test_train_val_and_test_do_not_share_a_row_and_hold_all_of_them(cls):
    data = cls()
    rows = [tuple(row.flatten().tolist()) for name in data.splits for row in data.raw(name).x]
    sizes = [len(data.raw(name).x) for name in ("train", "val", "test")]
    assert sum(sizes) == len(rows) == {CarPrices: 1000, Diabetes: 442, TwoMoons: 1000}.get(cls, len(rows))
    assert len(set(rows)) >= len(rows) - 5  # a few digits are equal images
    assert sizes[0] / len(rows) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("cls", EMBEDDED)
def test_normalised_training_inputs_have_mean_0_and_deviation_1_by_train_alone(cls):
    data = cls()
    axes = 0 if len(data.shape) == 1 else (0, 2, 3)
    train, test = data.tensors("train").x, data.tensors("test").x
    torch.testing.assert_close(train.mean(axes), torch.zeros_like(train.mean(axes)), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(axes, correction=0), torch.ones_like(train.mean(axes)), atol=1e-4, rtol=0)
    assert float(test.mean(axes).abs().max()) > 1e-3
    assert train.dtype == test.dtype == torch.float32


@pytest.mark.parametrize("cls", EMBEDDED)
def test_the_split_follows_split_seed_and_not_seed(cls):
    same, other = cls(seed=7), cls(split_seed=1)
    assert torch.equal(cls().raw("test").x, same.raw("test").x)
    assert not torch.equal(cls().raw("test").x, other.raw("test").x)
    first, second = (next(iter(data.train_dataloader()))[0] for data in (cls(), same))
    assert not torch.equal(first, second)  # the order does follow seed


def test_stratified_splits_keep_the_shares_of_the_classes():
    labels = torch.tensor([0] * 700 + [1] * 200 + [2] * 100)
    parts = split_indices(1000, 0, labels)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(1000))
    for name, size in {"train": 600, "val": 200, "test": 200}.items():
        counts = torch.bincount(labels[parts[name]])
        torch.testing.assert_close(counts / size, torch.tensor([0.7, 0.2, 0.1]), atol=0.006, rtol=0)


def test_a_class_with_one_sample_does_not_stop_the_split():
    parts = split_indices(20, 0, [0] * 19 + [1])
    assert sum(len(part) for part in parts.values()) == 20


def test_setup_loads_once():
    class Counting(TwoMoons):
        loads = 0

        def load(self):
            Counting.loads += 1
            return super().load()

    data = Counting()
    for _ in range(2):
        data.setup("fit")
        data.train_dataloader()
        assert data.num_classes == 2
    assert Counting.loads == 1


def test_loaders_have_the_batch_sizes_asked_for():
    data = TwoMoons(batch_size=7, eval_batch_size=31)
    assert [len(next(iter(loader))[0]) for loader in (data.train_dataloader(), data.val_dataloader())] == [7, 31]
    assert len(next(iter(TwoMoons(batch_size=7).loader("test")))[0]) == 7


def test_evaluation_keeps_the_order_of_the_split():
    data = BreastCancer(batch_size=17)
    x, y = (torch.cat(parts) for parts in zip(*data.loader("test")))
    assert torch.equal(x, data.tensors("test").x)
    assert torch.equal(y, data.raw("test").y)


@pytest.mark.parametrize("cls", EMBEDDED)
@pytest.mark.parametrize("before_setup", [True, False])
def test_a_checkpoint_s_statistics_replace_those_of_the_data(cls, before_setup, tmp_path):
    source = cls(split_seed=1)
    torch.save(source.state_dict(), tmp_path / "state.pt")
    target = cls()
    own = cls().tensors("train").x
    if not before_setup:
        target.tensors("train")
    target.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    expected = normalise(target.raw("train").x, source._mean, source._std)
    assert torch.equal(target.tensors("train").x, expected)
    assert torch.equal(next(iter(target.val_dataloader()))[0], target.tensors("val").x[:64])
    assert not torch.equal(own, expected)


def test_normalising_in_advance_and_by_batch_give_the_same_bits(monkeypatch):
    ready = [batch[0] for batch in Digits().train_dataloader()]
    monkeypatch.setattr(module_file, "FLOAT_CACHE_BYTES", 0)
    late = [batch[0] for batch in Digits().train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(ready, late, strict=True))


def test_an_unknown_or_empty_split_is_refused():
    class Hollow(DataModule):
        def load(self):
            return {"train": Split(torch.zeros(3, 2), torch.zeros(3)), "val": Split(torch.zeros(0, 2), torch.zeros(0))}

    with pytest.raises(ConfigError, match=r"'val' is empty \(train 3, val 0 samples\)"):
        Hollow().train_dataloader()
    with pytest.raises(ConfigError, match="no split 'dev', only train, val, test"):
        TwoMoons().raw("dev")


# Files


def test_the_data_root_is_the_argument_then_the_environment_then_data(monkeypatch, tmp_path):
    monkeypatch.setenv("DL_COURSE_DATA", str(tmp_path / "env"))
    monkeypatch.chdir(tmp_path)
    assert data_root(str(tmp_path / "given")) == tmp_path / "given"
    assert data_root(None) == tmp_path / "env"
    monkeypatch.delenv("DL_COURSE_DATA")
    assert data_root(None) == tmp_path / "data"


def _prepare(folder: Path, log: Path, start: float) -> None:
    def build(partial: Path) -> None:
        with log.open("a") as file:
            file.write("built\n")
        for i in range(5):
            (partial / f"{i}.bin").write_bytes(bytes([i]) * 1000)
            time.sleep(0.05)

    time.sleep(max(0.0, start - time.time()))
    prepare_once(folder, build)
    assert sorted(path.name for path in folder.glob("*.bin")) == [f"{i}.bin" for i in range(5)]


def test_four_processes_at_once_prepare_once(tmp_path):
    folder, log = tmp_path / "root" / "set", tmp_path / "log"
    context = mp.get_context("fork")
    processes = [context.Process(target=_prepare, args=(folder, log, time.time() + 0.3)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "built\n"
    assert not list(folder.parent.glob(".*.partial"))


def test_a_build_that_fails_or_was_killed_leaves_no_folder_and_the_next_one_succeeds(tmp_path):
    folder = tmp_path / "set"

    def broken(partial: Path) -> None:
        (partial / "half").write_text("half")
        raise RuntimeError("connection lost")

    with pytest.raises(RuntimeError, match="connection lost"):
        prepare_once(folder, broken)
    assert not folder.exists()
    leftover = tmp_path / ".set.partial"  # what kill -9 leaves
    leftover.mkdir()
    (leftover / "stale").write_text("stale")
    prepare_once(folder, build_small)
    assert sorted(path.name for path in folder.iterdir()) == [".complete", "sub"]


def build_small(partial: Path) -> None:
    (partial / "sub").mkdir()
    (partial / "sub" / "a.bin").write_bytes(b"abcd")


def test_the_marker_finds_truncation_always_and_equal_size_damage_with_verify(tmp_path):
    folder = prepare_once(tmp_path / "set", build_small)
    path = folder / "sub" / "a.bin"
    assert marked_files(folder) == {os.path.join("sub", "a.bin"): [4, sha256(path)]}
    check_files(folder, marked_files(folder), verify=True)
    path.write_bytes(b"abcX")
    check_files(folder, marked_files(folder), verify=False)
    with pytest.raises(ConfigError) as error:
        check_files(folder, marked_files(folder), verify=True)
    assert str(path) in str(error.value)
    assert "SHA-256" in str(error.value)
    path.write_bytes(b"abc")
    with pytest.raises(ConfigError, match="expected 4 bytes, found 3") as error:
        check_files(folder, marked_files(folder), verify=False)
    assert "data.root=" in str(error.value)
    assert len(str(error.value).splitlines()) <= 5
    path.unlink()
    with pytest.raises(ConfigError, match="missing"):
        check_files(folder, marked_files(folder), verify=False)


def as_nobody(action) -> str:
    """Run `action` in a child process without root's rights; the text of the ConfigError that it raises, or ''."""
    context = mp.get_context("fork")
    queue = context.SimpleQueue()

    def child() -> None:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            action()
            queue.put("")
        except ConfigError as error:
            queue.put(str(error))

    process = context.Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    return queue.get()


@pytest.fixture
def open_path(tmp_path):
    """A folder that every user may walk into."""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


def test_a_complete_read_only_folder_just_works(open_path):
    folder = prepare_once(open_path / "set", build_small)
    open_path.chmod(0o555)
    try:
        assert as_nobody(lambda: prepare_once(folder, build_small)) == ""
    finally:
        open_path.chmod(0o755)


@pytest.mark.parametrize("user", ["nobody", "own"])
def test_a_missing_folder_on_a_read_only_root_is_explained(open_path, user):
    open_path.chmod(0o555)

    def action():
        prepare_once(open_path / "set", build_small)

    try:
        if user == "nobody":
            message = as_nobody(action)
        else:
            with pytest.raises(ConfigError) as error:
                action()
            message = str(error.value)
    finally:
        open_path.chmod(0o755)
    assert str(open_path / "set") in message
    assert "data.root=<folder>" in message
    assert len(message.splitlines()) <= 5
    assert not list(open_path.iterdir())


def test_a_file_in_the_place_of_the_root_is_explained(tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(ConfigError, match=r"data\.root="):
        prepare_once(tmp_path / "root" / "set", build_small)
