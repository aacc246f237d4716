"""Images (C, H, W): scikit-learn's digits, the classical benchmarks through torchvision, and any folder of pictures."""

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from dl_course.data.augment import Augment
from dl_course.data.loader import Transform
from dl_course.data.module import (
    CANNOT_WRITE,
    DataModule,
    Split,
    check_files,
    data_root,
    marked_files,
    prepare_once,
    remedy,
    split_indices,
)
from dl_course.errors import ConfigError, suggest


@dataclass(kw_only=True, eq=False, repr=False)
class Images(DataModule):
    """Images in [0, 1], held as uint8 or float32 (N, C, H, W), normalised and augmented on the way out.

    normalize: "channel" gives each channel mean 0 and deviation 1 over the training images (ResNet); "pixel" subtracts
        the mean training image (AlexNet); "none" leaves [0, 1]  (TUM8, data preprocessing).
    augment: random transformations of training images, see `Augment`.
    """

    normalize: Literal["none", "channel", "pixel"] = "channel"
    augment: Augment | None = None

    def augmentation(self) -> Transform | None:
        return self.augment if self.augment is not None and self.augment.steps else None

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.normalize == "none":
            return None
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        total = torch.zeros(x.shape[1:], dtype=torch.float64)
        square = torch.zeros_like(total)
        for part in x.split(4096):
            part = part.double()
            total += part.sum(0)
            square += part.square().sum(0)
        mean = total / (scale * len(x))  # (C, H, W)
        if self.normalize == "pixel":
            return mean.float(), torch.ones(1)
        channel = mean.mean((1, 2), keepdim=True)  # (C, 1, 1)
        variance = (square / (scale**2 * len(x))).mean((1, 2), keepdim=True) - channel**2
        std = variance.clamp(min=0).sqrt()
        return channel.float(), torch.where(std > 0, std, 1.0).float()


@dataclass(kw_only=True, eq=False, repr=False)
class Digits(Images):
    """1,797 handwritten digits, (1, 8, 8), ten classes (scikit-learn; Alpaydin & Kaynak 1998).

    Counts 0–16 become [0, 1]. 1,079 train, 359 val and 359 test images, stratified.
    """

    @property
    def class_names(self) -> list[str]:
        return [str(i) for i in range(10)]

    def load(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        counts, classes = load_digits(return_X_y=True)
        x = torch.as_tensor(counts, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16  # (N, 1, 8, 8)
        y = torch.as_tensor(classes, dtype=torch.int64)
        parts = split_indices(len(x), self.split_seed, y)
        return {name: Split(x[index], y[index]) for name, index in parts.items()}


@dataclass(kw_only=True, eq=False, repr=False)
class MNIST(Images):
    """70,000 handwritten digits, (1, 28, 28), ten classes (LeCun et al. 1998), through torchvision.

    55,000 train, 5,000 val (the last of the original 60,000 training images), 10,000 test.
    Reads the four idx files under `<root>/MNIST/raw`; downloads them if the folder is missing and there is a network.
    """

    counts: ClassVar[tuple[int, int]] = (60_000, 10_000)  # training images (val included), test images
    held_out: ClassVar[int] = 5_000
    checksums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
    library_class: ClassVar[str] = "MNIST"

    @property
    def class_names(self) -> list[str]:
        return [str(i) for i in range(10)]

    def load(self) -> dict[str, Split]:
        from torchvision import datasets

        library = getattr(datasets, self.library_class)
        root = data_root(self.root)
        folder = root / self.library_class
        if not (folder / "raw").is_dir():
            prepare_once(folder, lambda partial: _download_idx(library, folder, partial))
        check_files(folder, self._expected(folder), verify=self.verify)
        train, test = library(root, train=True), library(root, train=False)
        return {
            "train": Split(train.data[: -self.held_out, None], train.targets[: -self.held_out]),
            "val": Split(train.data[-self.held_out :, None], train.targets[-self.held_out :]),
            "test": Split(test.data[:, None], test.targets),
        }

    def _expected(self, folder: Path) -> dict[str, list]:
        """Size and SHA-256 of each file: from our table, else as recorded when we downloaded it, else None."""
        marks = marked_files(folder)
        expected = {}
        for part, count in zip(("train", "t10k"), self.counts):
            for kind, size in (("images-idx3", 16 + 784 * count), ("labels-idx1", 8 + count)):
                name = f"{part}-{kind}-ubyte"
                recorded = marks.get(f"raw/{name}", [size, None])[1]
                expected[f"raw/{name}"] = [size, self.checksums.get(name, recorded)]
        if self.verify and (unknown := [name for name, (_, checksum) in expected.items() if checksum is None]):
            raise ConfigError(
                f"cannot verify {folder / unknown[0]}: no checksum is known\n"
                f"  drop data.verify, or delete {folder} to download it with checksums"
            )
        return expected


@dataclass(kw_only=True, eq=False, repr=False)
class FashionMNIST(MNIST):
    """70,000 pictures of clothes, (1, 28, 28), ten classes (Xiao et al. 2017); files and splits as in MNIST."""

    checksums: ClassVar[dict[str, str]] = {}  # recorded at the download, whose archives torchvision verifies
    library_class: ClassVar[str] = "FashionMNIST"

    @property
    def class_names(self) -> list[str]:
        return ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


@dataclass(kw_only=True, eq=False, repr=False)
class CIFAR10(Images):
    """60,000 small colour photographs, (3, 32, 32), ten classes (Krizhevsky 2009), through torchvision.

    45,000 train, 5,000 val (the last of the original 50,000 training images), 10,000 test. torchvision compares each
    file under `<root>/cifar-10-batches-py` with its MD5 before it is read, with or without `verify`.
    """

    held_out: ClassVar[int] = 5_000

    @property
    def class_names(self) -> list[str]:
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def load(self) -> dict[str, Split]:
        from torchvision import datasets

        library = datasets.CIFAR10
        root = data_root(self.root)
        folder = root / library.base_folder
        if not folder.is_dir():
            prepare_once(folder, lambda partial: _download_cifar(library, folder, partial))
        _check_md5(folder, [*library.train_list, *library.test_list])
        train, test = library(root, train=True), library(root, train=False)
        x, y = _channels_first(train.data), torch.tensor(train.targets)
        return {
            "train": Split(x[: -self.held_out], y[: -self.held_out]),
            "val": Split(x[-self.held_out :], y[-self.held_out :]),
            "test": Split(_channels_first(test.data), torch.tensor(test.targets)),
        }


def _channels_first(data: np.ndarray) -> Tensor:
    """uint8 (N, H, W, C) → (N, C, H, W)."""
    return torch.from_numpy(data).permute(0, 3, 1, 2).contiguous()


def _check_md5(folder: Path, files: list[list[str]]) -> None:
    """Compare files with torchvision's own [name, MD5]. Raises: ConfigError that names the first damaged one."""
    from torchvision.datasets.utils import calculate_md5

    for name, checksum in files:
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"data file missing: {path}{remedy(folder)}")
        if (found := calculate_md5(path)) != checksum:
            size = path.stat().st_size
            raise ConfigError(
                f"damaged data file: {path} ({size:,} bytes)\n  expected MD5 {checksum}, found {found}{remedy(folder)}"
            )


def _download_idx(library: Any, folder: Path, partial: Path) -> None:
    with _offline_message(library.__name__, folder, library.mirrors[0]):
        library(partial / "download", download=True)
    (partial / "download" / library.__name__ / "raw").rename(partial / "raw")
    shutil.rmtree(partial / "download")
    for archive in (partial / "raw").glob("*.gz"):
        archive.unlink()


def _download_cifar(library: Any, folder: Path, partial: Path) -> None:
    with _offline_message("CIFAR10", folder, library.url):
        library(partial / "download", download=True)
    for path in (partial / "download" / library.base_folder).iterdir():
        path.rename(partial / path.name)
    shutil.rmtree(partial / "download")


@contextmanager
def _offline_message(name: str, folder: Path, url: str) -> Iterator[None]:
    """Turn what torchvision raises without a network into: what is missing, from where, where to, and the way out."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            raise
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(
            f"{name} is not in {folder}, and the download failed: {reason}\n"
            f"  it comes from {url}\n"
            f"  or name the folder that holds {folder.name}/: data.root=<folder>"
        ) from error


IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(kw_only=True, eq=False, repr=False)
class ImageFolder(Images):
    """Your own pictures: `root` holds one folder per class, or the folders train, val, test that hold those.

    Without train/val/test folders, 20 % of each class become val and 20 % test; without a val folder, 20 % of train;
    with train and val alone there is no test split. Folders that contain no picture are ignored.
    Every picture is turned upright, resized to cover a square of `image_size` pixels, cut in its middle, and kept as
    uint8; with `cache` the decoded pictures are kept on disk too, under `$DL_COURSE_DATA/folders`.
    Raises: ConfigError for a missing or empty folder, one class only, an unknown class, or an unreadable picture.
    """

    image_size: Annotated[int, Ge(1), Le(1024)] = 32
    channels: Literal[1, 3] = 3
    cache: bool = False

    @property
    def class_names(self) -> list[str]:
        self.setup()
        return self._classes

    def load(self) -> dict[str, Split]:
        if self.root is None:
            raise ConfigError("data.root names no folder: give the one that holds your images, data.root=<folder>")
        root = Path(self.root).expanduser().resolve()
        if not root.is_dir():
            raise ConfigError(f"no such folder of images: {root}\n  data.root=<folder> holds one folder per class")
        folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
        if "train" not in folders:
            return self._whole(self._read(root))
        val = next((folders[name] for name in ("val", "valid", "validation") if name in folders), None)
        splits = {"train": self._read(folders["train"])}
        if val is None:
            x, y = splits["train"]
            parts = split_indices(len(x), self.split_seed, y, test=0)
            splits = {name: Split(x[index], y[index]) for name, index in parts.items()}
        else:
            splits["val"] = self._read(val, self._classes)
        if "test" in folders:
            splits["test"] = self._read(folders["test"], self._classes)
        return splits

    def _whole(self, images: Split) -> dict[str, Split]:
        x, y = images
        parts = split_indices(len(x), self.split_seed, y)
        return {name: Split(x[index], y[index]) for name, index in parts.items()}

    def _read(self, root: Path, classes: list[str] | None = None) -> Split:
        """All pictures under the class folders of `root`, in the order of their names."""
        found = {
            folder.name: sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
        }
        found = {name: paths for name, paths in found.items() if paths}
        if classes is None:
            if len(found) < 2:
                raise ConfigError(
                    f"at least two folders with images expected in {root}, found {len(found)}"
                    f"{': ' + next(iter(found)) if found else ''}\n"
                    f"  one folder per class, e.g. {root.name}/cat/1.jpg and {root.name}/dog/1.jpg"
                )
            self._classes = classes = list(found)
        if unknown := sorted(set(found) - set(classes)):
            hint = suggest(unknown[0], classes)
            raise ConfigError(f"{root / unknown[0]} is no class of the training images{hint} ({', '.join(classes)})")
        paths = [path for group in found.values() for path in group]
        labels = [classes.index(name) for name, group in found.items() for _ in group]
        return Split(self._decoded(root, paths), torch.tensor(labels, dtype=torch.int64))

    def _decoded(self, root: Path, paths: list[Path]) -> Tensor:
        """The pictures as uint8 (N, C, S, S), out of the cache where one is wanted and its key still fits."""
        if not self.cache:
            return decode_images(paths, self.image_size, self.channels)
        listing = [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        key = hashlib.sha256(repr((str(root), self.image_size, self.channels, listing)).encode()).hexdigest()[:16]

        def build(partial: Path) -> None:
            np.save(partial / "images.npy", decode_images(paths, self.image_size, self.channels).numpy())

        folder = prepare_once(data_root(None) / "folders" / f"{root.name}-{key}", build)
        check_files(folder, marked_files(folder), verify=self.verify)
        return torch.from_numpy(np.load(folder / "images.npy", allow_pickle=False))


def decode_images(paths: list[Path], size: int, channels: int = 3) -> Tensor:
    """Pictures from disk → uint8 (N, C, size, size): upright, resized to cover the square, cut in the middle.

    Raises: ConfigError that names the file which is not a readable picture.
    """
    from PIL import Image, ImageOps

    images = torch.empty(len(paths), channels, size, size, dtype=torch.uint8)

    def decode(i: int) -> None:
        try:
            with Image.open(paths[i]) as file:
                upright = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
                square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ConfigError(f"not a readable image: {paths[i]} ({error})\n  repair or delete the file") from error
        images[i] = torch.from_numpy(np.array(square)).reshape(size, size, channels).permute(2, 0, 1)

    with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        list(pool.map(decode, range(len(paths))))
    return images
