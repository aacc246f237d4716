"""The order is a function of (seed, epoch), augmentation of (seed, epoch, sample), and a resumed run sees the rest."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch import Callback, LightningModule, Trainer

from dl_course.data.augment import Augment
from dl_course.data.loader import BatchLoader, keyed_generator
from dl_course.data.module import Pipeline
from dl_course.errors import ConfigError

N = 103


def tensors(n: int = N):
    return torch.arange(n, dtype=torch.float32), torch.arange(n)


def loader(workers: int = 0, n: int = N, batch_size: int = 10, **options) -> BatchLoader:
    return BatchLoader(tensors(n), batch_size, **{"shuffle": True, "seed": 5, "num_workers": workers, **options})


def image_loader(workers: int = 0, batch_size: int = 8, seed: int = 5) -> BatchLoader:
    images = torch.randint(0, 256, (53, 3, 11, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    augment = Augment(flip=0.5, crop=2, rotation=10.0, brightness=0.2, scale=[0.7, 1.0])
    pipeline = Pipeline(augment, torch.tensor([0.4]), torch.tensor([0.2]))
    return BatchLoader(
        (images, torch.arange(53)), batch_size, shuffle=True, seed=seed, transform=pipeline, num_workers=workers
    )


def ids(batches) -> list[list[int]]:
    return [batch[1].tolist() for batch in batches]


def flat(batches) -> list[int]:
    return [sample for batch in ids(batches) for sample in batch]


def numpy_state() -> np.ndarray:
    return np.array(np.random.get_state(legacy=False)["state"]["key"])  # type: ignore[call-overload]


def digest(batches) -> str:
    """SHA-256 of every bit that a pass hands out."""
    result = hashlib.sha256()
    for batch in batches:
        for tensor in batch:
            result.update(tensor.numpy().tobytes())
    return result.hexdigest()


def test_batches_are_the_rows_of_the_permutation():
    order = torch.randperm(N, generator=keyed_generator("order", 5, 0))
    batches = list(loader())
    assert [len(y) for _, y in batches] == [10] * 10 + [3]
    assert torch.equal(torch.cat([y for _, y in batches]), order)
    assert torch.equal(torch.cat([x for x, _ in batches]), order.float())


def test_every_sample_once_an_epoch_and_another_order_in_the_next_and_for_another_seed():
    first = loader()
    orders = [flat(first), flat(first), flat(loader(seed=6))]
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_without_shuffle_the_order_is_the_data_s_own():
    assert flat(loader(shuffle=False)) == list(range(N))


def test_drop_last_drops_the_incomplete_batch_only():
    assert len(loader(drop_last=True)) == 10 == len(list(loader(drop_last=True)))
    assert len(loader(n=100, drop_last=True)) == 10


def test_batches_are_copies():
    source = torch.zeros(6, 2), torch.zeros(6)
    for x, _ in BatchLoader(source, 3, shuffle=False):
        x += 1
    assert source[0].abs().sum() == 0


@pytest.mark.parametrize("make", [loader, image_loader])
def test_workers_hand_out_the_same_bits(make):
    single, double = make(0), make(2)
    for _ in range(3):
        assert digest(single) == digest(double)


def test_two_workers_are_really_two_processes_and_none_is_left_behind():
    with_workers = loader(2)
    unfinished = iter(with_workers)
    next(unfinished)
    children = [process.pid for process in mp.active_children()]
    assert len(children) == 2
    with_workers.close()
    assert not mp.active_children()
    assert flat(with_workers) == flat(loader())  # usable again
    with_workers.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_left_alone(workers):
    before, numpy_before = torch.get_rng_state(), numpy_state()
    list(image_loader(workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert (numpy_state() == numpy_before).all()


def test_bits_do_not_depend_on_the_process_or_on_its_hash_seed():
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # another than ours
    code = "import test_loader as t; print(t.digest(t.image_loader(2)))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder), str(folder.parents[1])])
    environment["PYTHONPATH"] = path
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest(image_loader(0))


def test_augmentation_belongs_to_the_sample_not_to_its_batch():
    def by_sample(batch_size: int) -> dict[int, torch.Tensor]:
        pairs = zip(*[torch.cat(parts) for parts in zip(*image_loader(batch_size=batch_size))])
        return {int(i): image for image, i in pairs}

    small, large = by_sample(3), by_sample(53)
    assert small.keys() == large.keys()
    for i, image in small.items():
        torch.testing.assert_close(image, large[i], atol=1e-5, rtol=0)


def test_augmentation_differs_between_epochs_and_seeds():
    images = {}
    for name, source in {"seed 5": image_loader(batch_size=53), "seed 6": image_loader(batch_size=53, seed=6)}.items():
        for epoch in range(2):
            ((x, i),) = source
            images[name, epoch] = x[i.argsort()]
    for a, b in [(("seed 5", 0), ("seed 5", 1)), (("seed 5", 0), ("seed 6", 0))]:
        assert not torch.equal(images[a], images[b])


# Position and resume


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 7, 11])
def test_a_loaded_position_gives_the_rest_and_then_a_whole_epoch(workers, stop):
    whole = loader()
    epochs = [ids(whole) for _ in range(3)]
    first = loader(workers)
    list(first)
    iterator = iter(first)
    seen = [next(iterator)[1].tolist() for _ in range(stop)]
    assert seen == epochs[1][:stop]
    state = first.state_dict()
    if stop:
        assert state == {"epoch": 1, "position": stop}  # what workers have prefetched does not count
    second = loader(workers)
    second.load_state_dict(state)
    if 0 < stop < 11:
        assert ids(second) == epochs[1][stop:]
        assert ids(second) == epochs[2]
    else:  # at either end of an epoch the next pass is a whole one
        assert ids(second) == epochs[1 if stop == 0 else 2]
    first.close()
    second.close()


def test_iter_is_lazy_so_that_the_epoch_may_be_named_after_it():
    source = loader()
    iterator = iter(source)
    source.set_epoch(4)
    expected = loader()
    expected.set_epoch(4)
    assert ids(iterator) == ids(expected)


def test_set_epoch_keeps_a_loaded_position_of_the_same_epoch_only():
    source = loader()
    source.load_state_dict({"epoch": 2, "position": 4})
    source.set_epoch(2)
    assert len(list(source)) == 7
    source.load_state_dict({"epoch": 2, "position": 4})
    source.set_epoch(3)
    assert len(list(source)) == 11


def test_a_peek_or_a_broken_pass_costs_nothing():
    source = loader()
    next(iter(source))
    assert ids(source) == ids(loader())


@pytest.mark.parametrize("position", [-1, 12])
def test_an_impossible_position_is_refused(position):
    with pytest.raises(ValueError, match=f"position {position}"):
        loader().load_state_dict({"epoch": 0, "position": position})


# Wrong input


def test_zero_batches_are_refused():
    with pytest.raises(ConfigError, match="7 samples, batch_size=8, drop_last=True"):
        BatchLoader(tensors(7), 8, shuffle=True, drop_last=True)
    with pytest.raises(ConfigError, match="0 samples"):
        BatchLoader(tensors(0), 8, shuffle=False)


def test_tensors_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        BatchLoader((torch.zeros(3), torch.zeros(4)), 2, shuffle=False)


# Ranks


def _rank(rank: int, world: int, port: int, n: int, batch_size: int, shuffle: bool, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    source = BatchLoader(tensors(n), batch_size, shuffle=shuffle, seed=5)
    batches = ids(source)
    assert len(batches) == len(source)
    torch.save(batches, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def run_ranks(tmp_path: Path, world: int, **options) -> list[list[list[int]]]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = (
        world,
        port,
        options.get("n", N),
        options.get("batch_size", 10),
        options.get("shuffle", True),
        str(tmp_path),
    )
    mp.start_processes(_rank, args=args, nprocs=world, start_method="fork")
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]


def test_ranks_share_every_batch_of_the_one_process_order(tmp_path):
    ranks = run_ranks(tmp_path, 2)
    for whole, left, right in zip(ids(loader()), *ranks):
        assert left == whole[0::2]
        assert right == whole[1::2]


def test_a_last_batch_smaller_than_the_world(tmp_path):
    n, batch_size = 7, 6  # the last batch holds one sample
    train = run_ranks(tmp_path, 2, n=n, batch_size=batch_size, shuffle=True)
    assert train[0][1] == train[1][1]  # both ranks must step, so one repeats it
    evaluation = run_ranks(tmp_path, 2, n=n, batch_size=batch_size, shuffle=False)
    assert evaluation == [[[0, 2, 4], [6]], [[1, 3, 5]]]  # every sample counts once


# Lightning


class Recorder(LightningModule):
    """Learns nothing; remembers which samples it was given, in order."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def training_step(self, batch, _):
        self.seen.append(batch[1].tolist())
        return (self.weight * batch[0]).mean()

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAndStop(Callback):
    """Save a checkpoint in one of the hooks, after `steps` steps, and end the run as a crash would."""

    def __init__(self, path: Path, steps: int, hook: str):
        self.path, self.steps, self.hook = path, steps, hook

    def _act(self, hook: str, trainer: Trainer) -> None:
        if hook == self.hook and trainer.global_step >= self.steps:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def on_train_batch_end(self, trainer, *_):
        self._act("batch", trainer)

    def on_validation_end(self, trainer, *_):
        self._act("validation", trainer)

    def on_train_epoch_end(self, trainer, *_):
        self._act("epoch", trainer)


def fit(workers: int, callback: Callback | None = None, ckpt_path: Path | None = None, **options) -> Recorder:
    limits = {"max_epochs": 3, **options}
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if callback else [],
        **limits,
    )
    train, val = loader(workers), loader(shuffle=False)
    try:
        trainer.fit(model, train, val, ckpt_path=ckpt_path, weights_only=True)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        assert callback is not None
        train.close()  # a run interrupted in validation leaves the training workers to whoever catches it
    return model


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("hook", "steps", "options"),
    [
        ("batch", 4, {}),  # in the first epoch
        ("batch", 16, {}),  # in the second
        ("batch", 11, {}),  # after the last batch of an epoch
        ("validation", 11, {}),
        ("epoch", 11, {}),
        ("validation", 5, {"val_check_interval": 5}),  # validation in the middle of an epoch
        ("batch", 16, {"max_epochs": -1, "max_steps": 30}),
        ("validation", 11, {"max_epochs": -1, "max_steps": 30}),
        ("batch", 9, {"limit_train_batches": 6}),
    ],
)
def test_a_resumed_lightning_run_sees_what_the_uninterrupted_one_saw(tmp_path, workers, hook, steps, options):
    whole = fit(0, **options).seen
    path = tmp_path / "stopped.ckpt"
    before = fit(workers, SaveAndStop(path, steps, hook), **options).seen
    after = fit(workers, ckpt_path=path, **options).seen
    assert before == whole[: len(before)]
    assert before + after == whole
    assert not mp.active_children()


def test_lightning_names_the_epochs():
    expected = loader()
    assert fit(0).seen == [batch for _ in range(3) for batch in ids(expected)]
