"""What every data set shares: splits in memory, statistics fitted on train, loaders, and files prepared once."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Le, Lt
from lightning.pytorch import LightningDataModule
from torch import Tensor

from dl_course.data.loader import BatchLoader, Transform
from dl_course.errors import ConfigError

FLOAT_CACHE_BYTES = 2**30  # a split is normalised once, in advance, if it then takes at most this much memory


class Split(NamedTuple):
    """The samples of one split, whole. x (N, …) float32 or uint8 images, y (N,) int64 classes or float32 values."""

    x: Tensor
    y: Tensor


@dataclass(kw_only=True, eq=False, repr=False)
class DataModule(LightningDataModule):
    """A data set that fits in memory: a subclass implements `load`, and `statistics` where inputs are standardised.

    Everything fitted (mean, std, …) is fitted on train only and travels in `state_dict`, so that a checkpoint evaluates
    with the numbers it was trained with. Targets are never rescaled: errors are reported in the data's own units.

    Arguments shared by all data sets:
        batch_size, eval_batch_size: samples per batch; evaluation takes `batch_size` where it has none of its own.
        num_workers: processes that build batches ahead; 0 is fastest for most data in memory; the bits are the same.
        seed: the key of order and augmentation. split_seed: which samples form train, val and test (and, for generated
            data, which samples are drawn); it does not follow `seed`, so that seeds compare on the same data.
        root: where files lie; default `$DL_COURSE_DATA`, else `data/` under the working directory.
        verify: compare files with their checksums first (slower; finds damage that leaves the size unchanged).
    """

    batch_size: Annotated[int, Ge(1)] = 64
    eval_batch_size: Annotated[int, Ge(1)] | None = None
    num_workers: Annotated[int, Ge(0), Le(64)] = 0
    seed: int = 0
    split_seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    root: str | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self._raw: dict[str, Split] = {}
        self._normalised: dict[str, Split] = {}
        self._mean: Tensor | None = None
        self._std: Tensor | None = None

    # What a subclass says

    def load(self) -> dict[str, Split]:
        """The splits "train", "val" and, where there is one, "test". Raises: ConfigError if data are missing."""
        raise NotImplementedError(f"{type(self).__name__} does not implement load()")

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """(mean, std) of the training inputs, broadcastable to one sample; None leaves inputs as they are."""
        return None

    def augmentation(self) -> Transform | None:
        """The random transformation of training inputs, or None."""
        return None

    # Facts

    @property
    def class_names(self) -> list[str]:
        """The name of each class; empty for regression."""
        return []

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 for regression."""
        return len(self.class_names)

    @property
    def num_outputs(self) -> int:
        """What a network puts out for this target: 1 if it is a float (regression, binary), else a score per class."""
        return 1 if self.raw("train").y.is_floating_point() else self.num_classes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: (F,) or (C, H, W)."""
        return tuple(self.raw("train").x.shape[1:])

    @property
    def num_features(self) -> int:
        """How many numbers one input holds: F or C·H·W."""
        return int(torch.Size(self.shape).numel())

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that there are."""
        self.setup()
        return tuple(self._raw)

    # Data

    def setup(self, stage: str | None = None) -> None:
        """Load the splits and fit the statistics on train. A second call does nothing."""
        if self._raw:
            return
        raw = self.load()
        empty = [name for name, split in raw.items() if len(split.x) == 0]
        if empty:
            sizes = ", ".join(f"{name} {len(split.x)}" for name, split in raw.items())
            raise ConfigError(f"{type(self).__name__}: split '{empty[0]}' is empty ({sizes} samples)")
        self._raw = raw
        self._fit()

    def _fit(self) -> None:
        """Fit what is fitted on train, unless a checkpoint has brought it."""
        if self._mean is None and (fitted := self.statistics(self._raw["train"].x)) is not None:
            self._mean, self._std = fitted

    def raw(self, name: str) -> Split:
        """A split as it was loaded, before normalisation. Raises: ConfigError if there is no such split."""
        self.setup()
        if name not in self._raw:
            raise ConfigError(f"{type(self).__name__} has no split '{name}', only {', '.join(self._raw)}")
        return self._raw[name]

    def tensors(self, name: str) -> Split:
        """A split as a network sees it: normalised, not augmented, x float32."""
        if name not in self._normalised:
            x, y = self.raw(name)
            split = Split(torch.cat([self.normalise(part) for part in x.split(4096)]), y)
            if split.x.nbytes > FLOAT_CACHE_BYTES:
                return split
            self._normalised[name] = split
        return self._normalised[name]

    def example(self) -> Split:
        """Two training samples as a network sees them, the first and one with the largest target."""
        x, y = self.raw("train")
        chosen = torch.tensor([0, int(y.argmax())])
        return Split(self.normalise(x[chosen]), y[chosen])

    def normalise(self, x: Tensor) -> Tensor:
        """New inputs in the data's own form (B, …) → what the network takes, float32."""
        self.setup()
        return normalise(x, self._mean, self._std)

    # Loaders

    def loader(self, name: str, *, shuffle: bool = False, augment: bool = False) -> BatchLoader:
        """Batches (x, y) of one split: x float32 (B, …), y (B,)."""
        x, y = self.raw(name)
        augmentation = self.augmentation() if augment else None
        fits = 4 * x.numel() <= FLOAT_CACHE_BYTES
        ready = augmentation is None and fits
        return BatchLoader(
            self.tensors(name) if ready else (x, y),
            self.batch_size if shuffle else self.eval_batch_size or self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            transform=None if ready else Pipeline(augmentation, self._mean, self._std),
            num_workers=self.num_workers,
        )

    def train_dataloader(self) -> BatchLoader:
        return self.loader("train", shuffle=True, augment=True)

    def val_dataloader(self) -> BatchLoader:
        return self.loader("val")

    def test_dataloader(self) -> BatchLoader | None:
        """Batches of the test split, or None where there is none."""
        return self.loader("test") if "test" in self.splits else None

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What was fitted on train, in tensors and plain containers."""
        self.setup()
        return {"mean": self._mean, "std": self._std}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was fitted from a checkpoint, before or after `setup`."""
        self._mean, self._std = state_dict["mean"], state_dict["std"]
        self._normalised.clear()


class Pipeline:
    """The way of a batch from memory to the network: augment, bring to [0, 1], normalise."""

    def __init__(self, augment: Transform | None, mean: Tensor | None, std: Tensor | None):
        self.augment, self.mean, self.std = augment, mean, std
        self.num_uniforms = augment.num_uniforms if augment else 0

    def __call__(self, x: Tensor, u: Tensor | None) -> Tensor:
        if self.augment is not None:
            x = self.augment(x, u)
        return normalise(x, self.mean, self.std)


def normalise(x: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
    """(x − mean)/std, where uint8 images come to [0, 1] first. x (B, …) → float32 (B, …)."""
    if mean is None or std is None:
        return x.float().div_(255) if x.dtype == torch.uint8 else x.float()
    if x.dtype == torch.uint8:
        return x.float().mul_(1 / (255 * std)).sub_(mean / std)
    return (x - mean).div_(std).float()


def split_indices(
    n: int, seed: int, labels: Sequence[int] | Tensor | None = None, val: float = 0.2, test: float = 0.2
) -> dict[str, Tensor]:
    """Which of n samples form train, val and test, by scikit-learn's `train_test_split`.

    With labels the split is stratified (each class has the same share everywhere), provided that every class has at
    least three samples and no split is smaller than the number of classes. val and test are shares of n.
    """
    from sklearn.model_selection import train_test_split

    n_val, n_test = round(val * n), round(test * n)
    strata = None if labels is None else torch.as_tensor(labels)
    if strata is not None:
        _, counts = strata.unique(return_counts=True)
        held_out = [size for size in (n_val, n_test) if size]
        if counts.min() < 3 or len(counts) > min(held_out, default=n):
            strata = None
    rest = torch.arange(n)
    parts = {}
    for name, size in (("test", n_test), ("val", n_val)):
        if size:
            stratify = None if strata is None else strata[rest].numpy()
            train, part = train_test_split(rest.numpy(), test_size=size, random_state=seed, stratify=stratify)
            rest, parts[name] = torch.from_numpy(train), torch.from_numpy(part)
    return {"train": rest, **{name: parts[name] for name in ("val", "test") if name in parts}}


# Files


def data_root(root: str | None) -> Path:
    """The folder of the data sets: `root`, else `$DL_COURSE_DATA`, else `data/` under the working directory."""
    return Path(root or os.environ.get("DL_COURSE_DATA") or "data").expanduser().resolve()


MARKER = ".complete"
CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY}


def prepare_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Let `build(temporary folder)` fill `folder`, once, whoever else tries at the same time.

    A lock beside the folder admits one process; it builds into a temporary folder, writes the marker `.complete` with
    the size and SHA-256 of every file, and renames: a folder that exists is complete. A complete folder is only read,
    so it may lie on a read-only disk. What `build` raises is passed on, and nothing is left behind.

    Raises: ConfigError if the folder is missing and cannot be made (a read-only disk, a file in its place).
    """
    from filelock import FileLock

    if (folder / MARKER).is_file():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.parent.stat().st_mode & 0o222:  # for root, too, a read-only folder is read-only
            raise PermissionError(errno.EACCES, f"{folder.parent} is read-only")
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if (folder / MARKER).is_file():
                return folder
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold the lock
            partial.mkdir()
            try:
                build(partial)
                files = sorted(path for path in partial.rglob("*") if path.is_file())
                marks = {str(path.relative_to(partial)): [path.stat().st_size, sha256(path)] for path in files}
                (partial / MARKER).write_text(json.dumps(marks, indent=1))
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise ConfigError(
            f"{folder} is missing or incomplete and cannot be made: {error.strerror}\n"
            f"  name a folder that has the data, or one that can be written to: data.root=<folder>"
        ) from error
    return folder


def check_files(folder: Path, expected: dict[str, list], *, verify: bool) -> None:
    """Compare files with their recorded [size, SHA-256]; the checksum (if it is recorded) only with `verify`.

    Raises: ConfigError that names the first missing or damaged file, what was expected and what was found.
    """
    for name, (size, checksum) in expected.items():
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"data file missing: {path}\n  expected {size:,} bytes{remedy(folder)}")
        if path.stat().st_size != size:
            found = path.stat().st_size
            raise ConfigError(f"damaged data file: {path}\n  expected {size:,} bytes, found {found:,}{remedy(folder)}")
        if verify and checksum and (found := sha256(path)) != checksum:
            raise ConfigError(
                f"damaged data file: {path}\n  expected SHA-256 {checksum[:16]}…, found {found[:16]}…{remedy(folder)}"
            )


def marked_files(folder: Path) -> dict[str, list]:
    """What the marker of a prepared folder records: {name: [size, SHA-256]}; empty where there is no marker."""
    marker = folder / MARKER
    return json.loads(marker.read_text()) if marker.is_file() else {}


def remedy(folder: Path) -> str:
    """The last line of a message about a damaged folder."""
    return f"\n  delete {folder} to prepare it anew, or name another folder: data.root=<folder>"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
