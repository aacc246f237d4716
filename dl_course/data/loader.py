"""Whole batches out of tensors in memory, in an order that is a function of (seed, epoch) and of nothing else.

Because nothing is drawn from a global generator, the number of workers, the process, the rank and `PYTHONHASHSEED`
cannot change a bit of what a model sees, and the position in an epoch is one integer to save.
"""

from __future__ import annotations

import hashlib
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, Protocol

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset

from dl_course.errors import ConfigError

Batch = tuple[Tensor, ...]


class Transform(Protocol):
    """What happens to the inputs of a batch on their way out: `transform(x, u)`, u (B, num_uniforms) in [0, 1) or None
    where num_uniforms is 0."""

    num_uniforms: int

    def __call__(self, x: Tensor, u: Tensor | None, /) -> Tensor: ...


def keyed_generator(*key: int | str) -> torch.Generator:
    """A generator seeded by a stable hash of the key: the same bits in every process and for every `PYTHONHASHSEED`.

    >>> keyed_generator("order", 0, 3).initial_seed() == keyed_generator("order", 0, 3).initial_seed()
    True
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class BatchDataset(Dataset):
    """A data set whose items are whole batches: `dataset[epoch, indices]` with indices int64 (B,).

    The augmentation of sample i is row i of one table of uniforms (N, K) per epoch, drawn from (seed, epoch):
    whatever batch, worker or rank the sample falls into, it is transformed alike.
    """

    def __init__(self, tensors: Sequence[Tensor], seed: int, transform: Transform | None):
        self.tensors = tuple(tensors)
        self.seed = seed
        self.transform = transform
        self._epoch = -1
        self._uniforms: Tensor | None = None  # (N, K) of the epoch

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        epoch, indices = key
        x, *others = (tensor.index_select(0, indices) for tensor in self.tensors)  # (B, …)
        if self.transform is not None:
            x = self.transform(x, self._rows(epoch, indices))
        return x, *others

    def _rows(self, epoch: int, indices: Tensor) -> Tensor | None:
        """The uniforms (B, K) of these samples in this epoch, or None where the transform draws nothing."""
        columns = self.transform.num_uniforms if self.transform else 0
        if columns == 0:
            return None
        if self._uniforms is None or epoch != self._epoch:
            size = (len(self.tensors[0]), columns)
            self._uniforms = torch.rand(size, generator=keyed_generator("augment", self.seed, epoch))
            self._epoch = epoch
        return self._uniforms.index_select(0, indices)


class BatchLoader:
    """An iterable of batches `(x, y, …)` cut from tensors that are held in memory as a whole.

    Order: with `shuffle`, epoch e visits the samples in the permutation drawn from (seed, e); without, in their own
    order. A finished pass moves on to the next epoch by itself; Lightning names the epoch through `sampler.set_epoch`.

    Workers: `num_workers=k` starts k processes that build batches ahead and live until `close()`, the end of the
    Trainer's run, or the loader's end. They save no time for data in memory without costly augmentation.

    Ranks: under `torch.distributed`, `batch_size` counts the samples of all ranks together, and rank r of w takes the
    samples r, r+w, r+2w, … of every batch, so that the sequence of batches is the same for every w. A last batch with
    fewer than w samples: for training (shuffle) a rank left without one repeats one of them, since all ranks must step
    together; for evaluation it takes none, so that every sample counts once.

    Resume: `state_dict()` counts the batches handed out, not those prefetched; after `load_state_dict` the next pass
    begins there, unless `set_epoch` names another epoch.

    Shapes: tensors (N, …) → batches (B, …), the last one smaller unless `drop_last`; `transform` sees the first tensor.
    Raises: ConfigError if there is no batch to give; ValueError if the tensors differ in length.
    """

    def __init__(
        self,
        split: Sequence[Tensor],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        transform: Transform | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
    ):
        lengths = [len(tensor) for tensor in split]
        if len(set(lengths)) != 1:
            raise ValueError(f"tensors of one length expected, got lengths {lengths}")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is below 1")
        self.num_samples = lengths[0]
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.num_workers = num_workers
        self.epoch = 0
        self._position = 0  # batches of this epoch handed out so far
        self._resuming = False  # the next pass starts at _position, not at 0
        self._dataset = BatchDataset(split, seed, transform)
        self._pending = _Pending()
        self._workers: DataLoader | None = None
        self._iterator: Any = None  # Lightning's teardown looks under this name to end the worker processes
        if self._num_global_batches == 0:
            sizes = f"{self.num_samples} samples, batch_size={batch_size}, drop_last={drop_last}"
            raise ConfigError(f"no batch to train or evaluate on: {sizes}")

    @property
    def _num_global_batches(self) -> int:
        full, rest = divmod(self.num_samples, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __len__(self) -> int:
        """Batches that this rank gets in one pass."""
        rank, _ = _rank_and_world()
        last = self.num_samples - (self._num_global_batches - 1) * self.batch_size
        return self._num_global_batches - (not self.shuffle and last <= rank)

    batch_sampler = None  # Lightning looks for it before it asks `sampler`

    @property
    def sampler(self) -> BatchLoader:
        """The object that Lightning calls `set_epoch` on."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass, which begins at its first batch, or at a position loaded for this epoch."""
        if not (self._resuming and epoch == self.epoch):
            self.epoch, self._position, self._resuming = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Where the current pass stands: the epoch, and the batches handed out in it."""
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass begin where the saved one stood. Raises: ValueError if this loader has no such position."""
        epoch, position = int(state["epoch"]), int(state["position"])
        if not 0 <= position <= self._num_global_batches:
            raise ValueError(f"position {position} is not within the {self._num_global_batches} batches of an epoch")
        self.epoch, self._position, self._resuming = epoch, position, True

    def order(self, epoch: int) -> Tensor:
        """The sample indices (N,) of an epoch, over all ranks, int64."""
        if self.shuffle:
            return torch.randperm(self.num_samples, generator=keyed_generator("order", self.seed, epoch))
        return torch.arange(self.num_samples)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, hence lazy: Lightning calls iter() before set_epoch; nothing is decided before the first next().
        if self._position >= len(self):  # the last pass was complete
            self.epoch, self._position = self.epoch + 1, 0
        elif not self._resuming:  # the last pass was abandoned, or there was none
            self._position = 0
        self._resuming = False
        epoch, start = self.epoch, self._position
        keys = self._keys(epoch, start)
        batches = self._from_workers(keys) if self.num_workers > 0 else map(self._dataset.__getitem__, keys)
        for position, batch in enumerate(batches, start + 1):
            self.epoch, self._position = epoch, position
            yield batch

    def _keys(self, epoch: int, start: int) -> Iterator[tuple[int, Tensor]]:
        """What this rank asks the data set for, batch by batch."""
        order = self.order(epoch)
        rank, world = _rank_and_world()
        for position in range(start, len(self)):
            indices = order[position * self.batch_size : (position + 1) * self.batch_size]
            part = indices[rank::world]
            yield epoch, part if len(part) else indices[rank % len(indices)].unsqueeze(0)

    def _from_workers(self, keys: Iterator[tuple[int, Tensor]]) -> Iterator[Batch]:
        if self._iterator is None:
            # fork shares the tensors at no cost; the private generator keeps the global one where it was.
            context = "fork" if sys.platform == "linux" else None
            self._workers = DataLoader(
                self._dataset,
                batch_size=None,
                sampler=self._pending,
                num_workers=self.num_workers,
                persistent_workers=True,
                multiprocessing_context=context,
                worker_init_fn=_leave_signals_to_the_program,
                generator=torch.Generator(),
            )
        assert self._workers is not None
        self._pending.keys = keys
        with warnings.catch_warnings():
            # Workers only index tensors: what a thread of the parent (TensorBoard's writer) holds cannot block them.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
            if self._iterator is not None:
                self._iterator = iter(self._workers)
            else:
                with _signals_held_back():
                    self._iterator = iter(self._workers)
                # At the program's end multiprocessing asks by SIGTERM, which they ignore, and waits for ever.
                Finalize(self._iterator, _kill, (self._iterator._workers,), exitpriority=0)
        return self._iterator

    def close(self) -> None:
        """End the worker processes, if there are any. The loader stays usable: a later pass starts new ones."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # at once, also when an unfinished pass still refers to them
        self._iterator = None
        self._workers = None


class _Pending:
    """The keys of the coming pass, in the place where a DataLoader expects its sampler."""

    keys: Iterator[tuple[int, Tensor]] = iter(())

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        return self.keys


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _leave_signals_to_the_program(worker: int) -> None:
    """Ctrl-C in a terminal, and `timeout`, strike the workers too; but the program saves first, and then ends them."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Keep both signals from this process, and from those that it starts until they ignore them themselves."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def _rank_and_world() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
