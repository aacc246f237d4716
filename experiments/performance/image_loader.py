"""Images out of the loader, against torchvision's pipelines as they are usually written. One thread.

python -m experiments.performance.image_loader

MNIST (from `$DL_COURSE_DATA`), no augmentation, batches of 128: torchvision's data set with ToTensor and Normalize in a
DataLoader. CIFAR-sized random images with crop (padding 4), flip and normalisation: the same image by image through
PIL, and through transforms v2 on tensors; ours is compared with the faster of the two. Building the loaders (reading
files, normalising once) is timed on neither side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms
from torchvision.transforms import v2

from dl_course.data import MNIST, Augment, BatchLoader
from dl_course.data.module import Pipeline
from experiments.performance.timing import Arm, Row, interleaved, main

BATCH = 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def measure(rounds: int = 7, quick: bool = False) -> list[Row]:
    """Two rows: the time for an image out of torchvision's pipeline over the time out of ours."""
    torch.set_num_threads(1)
    return [mnist_row(rounds, 256 if quick else 5_000), augmented_row(rounds, 256 if quick else 2_000)]


def mnist_row(rounds: int, part: int) -> Row:
    """MNIST as it is: all 55,000 training images of ours, `part` of torchvision's a round (it is that slow)."""
    what, bar = "image loader, MNIST, against torchvision's", 40.0
    root = os.environ.get("DL_COURSE_DATA")
    if root is None:
        return Row(what=what, bar=bar, kind="times faster", skipped="DL_COURSE_DATA names no folder with MNIST")
    data = MNIST(batch_size=BATCH)
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    library = Subset(datasets.MNIST(root, train=True, transform=steps), range(part))
    times = interleaved(
        {
            "course": one_pass(data.train_dataloader()),
            "torchvision": one_pass(DataLoader(library, batch_size=BATCH, shuffle=True)),
        },
        rounds,
    )
    ours = times["course"].per(len(data.raw("train").x))
    return Row(what=what, ours=ours, reference=times["torchvision"].per(part), bar=bar, kind="times faster")


def augmented_row(rounds: int, part: int) -> Row:
    """Crop, flip and normalise: 20,000 images of ours, `part` of torchvision's a round."""
    images = torch.randint(0, 256, (20_000, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % 10
    pipeline = Pipeline(Augment(flip=0.5, crop=4), torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1))
    pil = [
        transforms.ToPILImage(),
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    tensor = [
        v2.RandomCrop(32, padding=4),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    arms = {"course": one_pass(BatchLoader((images, labels), BATCH, shuffle=True, transform=pipeline))}
    for name, transform in {"PIL": transforms.Compose(pil), "transforms v2": v2.Compose(tensor)}.items():
        samples = Samples(images[:part], labels, transform)
        arms[name] = one_pass(DataLoader(samples, batch_size=BATCH, shuffle=True))
    times = interleaved(arms, rounds)
    ours = times.pop("course").per(len(images))
    reference = min(times.values(), key=lambda arm: arm.median).per(part)
    what = "image loader, CIFAR-sized, crop + flip + normalise, against torchvision's"
    return Row(what=what, ours=ours, reference=reference, bar=15.0, kind="times faster")


class Samples(Dataset):
    """Images one by one through a transform, as a torchvision data set hands them out."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable[[Any], torch.Tensor]):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def one_pass(batches: Iterable[Any]) -> Arm:
    """Timed: a whole pass over a loader. Checked: it handed out float images."""

    def arm() -> Iterator[object]:
        batch = None
        yield
        for batch in batches:  # noqa: B007
            pass
        yield
        assert batch is not None
        assert batch[0].dtype == torch.float32

    return arm


if __name__ == "__main__":
    main(measure)
