"""Images (C, H, W): scikit-learn's digits, the classical benchmarks through torchvision, and any folder of pictures."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dl_course.data.augment import Augment
from dl_course.data.loader import Transform
from dl_course.data.module import DataModule, Split, split_indices


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

        data = load_digits()
        x = torch.as_tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16  # (N, 1, 8, 8)
        y = torch.as_tensor(data.target, dtype=torch.int64)
        parts = split_indices(len(x), self.split_seed, y)
        return {name: Split(x[index], y[index]) for name, index in parts.items()}
