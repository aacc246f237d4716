"""Images per second out of the loader, against torchvision's pipelines as they are usually written. One thread.

    python -m experiments.performance.image_loader

MNIST (from `$DL_COURSE_DATA`), no augmentation, batches of 128: torchvision's data set with ToTensor and Normalize in a
DataLoader. CIFAR-sized random images with crop (padding 4), flip and normalisation: the same through PIL, and through
transforms v2 on tensors, image by image; ours is compared with the faster of the two. Building the loaders (reading
files, normalising once) is not counted, on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms
from torchvision.transforms import v2

from dl_course.data import MNIST, Augment, BatchLoader
from dl_course.data.module import Pipeline, data_root
from experiments.performance.timing import Arm, Row, interleaved, main

BATCH = 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def measure(rounds: int = 7, quick: bool = False) -> list[Row]:
    """Two rows: seconds per image on the way out of the loader, plain MNIST and augmented CIFAR-sized images."""
    torch.set_num_threads(1)
    return [_mnist(rounds, 300 if quick else 5_000), _augmented(rounds, 300 if quick else 2_000)]


def _mnist(rounds: int, part: int) -> Row:
    """torchvision goes through `part` images, ours through all 55,000."""
    what = "image loader, per image: MNIST, against torchvision + DataLoader"
    root = data_root(None)
    if not (root / "MNIST" / "raw").is_dir():
        return Row(what=what, bar=40, kind="times faster", skipped="no MNIST in $DL_COURSE_DATA")
    data = MNIST(batch_size=BATCH)
    ours = data.train_dataloader()
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    library = datasets.MNIST(root, train=True, transform=steps)
    reference = DataLoader(Subset(library, range(part)), batch_size=BATCH, shuffle=True)
    times = interleaved({"course": _pass(ours), "torchvision": _pass(reference)}, rounds)
    count = len(data.raw("train").x)
    return Row(
        what=what,
        ours=times["course"].per(count),
        reference=times["torchvision"].per(part),
        bar=40,
        kind="times faster",
    )


def _augmented(rounds: int, part: int) -> Row:
    """torchvision goes through `part` images, ours through ten times as many."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10 * part, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(images)) % 10
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    pipeline = Pipeline(Augment(flip=0.5, crop=4), mean, std)
    ours = BatchLoader((images, labels), BATCH, shuffle=True, transform=pipeline)
    pil = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    tensor = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    arms = {"course": _pass(ours)}
    for name, transform in {"torchvision, PIL": pil, "torchvision, v2": tensor}.items():
        arms[name] = _pass(DataLoader(Samples(images[:part], labels, transform), batch_size=BATCH, shuffle=True))
    course, *others = interleaved(arms, rounds).values()
    return Row(
        what="image loader, per image: CIFAR-sized, crop + flip + normalise, against the faster of torchvision's two",
        ours=course.per(len(images)),
        reference=min(others, key=lambda times: times.median).per(part),
        bar=15,
        kind="times faster",
    )


class Samples(Dataset):
    """Images one by one through a transform, as a torchvision data set hands them out."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable[[Any], torch.Tensor]):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def _pass(batches: Iterable[Any]) -> Arm:
    """One pass over a loader."""

    def arm() -> Iterator[object]:
        yield
        for _ in batches:
            pass
        yield

    return arm


if __name__ == "__main__":
    main(measure)
