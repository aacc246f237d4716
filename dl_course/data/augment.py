"""Random transformations of whole image batches: each image by its own draw, at the speed of one operation a batch.

Every class here is a function of (images, u): u (B, num_uniforms) in [0, 1) holds the draws of each image, so that who
owns the randomness (the loader, keyed by seed, epoch and sample) is settled elsewhere, and a test can choose a draw.
Images are (B, C, H, W), uint8 in 0…255 or floating point in [0, 1]; the result has the same shape. Geometry that moves
whole pixels keeps uint8; what interpolates or scales brightness returns float32 in [0, 1].
"""

from collections.abc import Sequence
from typing import Annotated, Protocol

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Len
from torch import Tensor


class Step(Protocol):
    """One random transformation: `step(images, u)` with u (B, num_uniforms)."""

    num_uniforms: int

    def __call__(self, images: Tensor, u: Tensor) -> Tensor: ...


class Flip:
    """Mirror an image with probability p: left-right, or upside down if `vertical`."""

    num_uniforms = 1

    def __init__(self, p: Annotated[float, Ge(0), Le(1)] = 0.5, vertical: bool = False):
        self.p, self.vertical = p, vertical

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        both = torch.cat([images, images.flip(-2 if self.vertical else -1)])  # (2B, C, H, W)
        mirrored = u[:, 0] < self.p
        return both.index_select(0, torch.arange(len(images)) + len(images) * mirrored)  # faster than torch.where


class Crop:
    """Pad with zeros on all sides, then cut the old size at a random place (He et al. 2016: padding 4 for CIFAR)."""

    num_uniforms = 2

    def __init__(self, padding: Annotated[int, Ge(0), Le(1024)] = 4):
        self.padding = padding

    def offsets(self, u: Tensor) -> Tensor:
        """Top and left of the window in the padded image, (B, 2) int64, each uniform on 0 … 2·padding."""
        return (u * (2 * self.padding + 1)).long().clamp_(max=2 * self.padding)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)  # (B, C, H + 2P, W + 2P)
        full_height, full_width = padded.shape[-2:]
        # Every run of W neighbours in memory, as a view that costs nothing; a window is H of them per channel.
        runs = padded.flatten().unfold(0, width, 1)  # (B·C·(H + 2P)·(W + 2P) − W + 1, W)
        top, left = self.offsets(u).unbind(1)
        first = torch.arange(batch * channels).view(batch, channels, 1) * (full_height * full_width)
        starts = first + (top * full_width + left).view(-1, 1, 1) + torch.arange(height) * full_width  # (B, C, H)
        return runs.index_select(0, starts.flatten()).view(images.shape)


class Translate(Crop):
    """Shift by at most `pixels` whole pixels in each direction; what comes in is 0. The same map as a padded crop."""

    def __init__(self, pixels: Annotated[int, Ge(0), Le(1024)] = 2):
        super().__init__(padding=pixels)


class ScaledCrop:
    """Cut a square share of an image at a random place and size, and resize it back (bilinear): scale jitter.

    The share of the area is uniform on `scale`, the sides are rounded to whole pixels.
    Differs from torchvision's RandomResizedCrop: the aspect ratio is kept, so that no draw has to be rejected.
    """

    num_uniforms = 3

    def __init__(self, scale: Annotated[Sequence[Annotated[float, Gt(0), Le(1)]], Len(2, 2)] = (0.8, 1.0)):
        low, high = scale
        if low > high:
            raise ValueError(f"scale=[{low}, {high}]: the first must not exceed the second")
        self.low, self.high = float(low), float(high)

    def boxes(self, u: Tensor, height: int, width: int) -> Tensor:
        """Top, left, height and width of each crop in whole pixels, (B, 4) int64."""
        side = (self.low + (self.high - self.low) * u[:, 0]).sqrt()
        h = (side * height).round().clamp(1, height)
        w = (side * width).round().clamp(1, width)
        top = (u[:, 1] * (height - h + 1)).floor()
        left = (u[:, 2] * (width - w + 1)).floor()
        return torch.stack([top, left, h, w], dim=1).long()

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        images = as_float(images)
        height, width = images.shape[-2:]
        top, left, h, w = self.boxes(u, height, width)[:, :, None].unbind(1)  # (B, 1) each
        # Where output pixel i of n comes from, in pixels of the image: (i + ½)·h/n − ½, kept inside the crop.
        rows = ((torch.arange(height) + 0.5) * h / height - 0.5).clamp(min=0).minimum(h - 1.0) + top  # (B, H)
        columns = ((torch.arange(width) + 0.5) * w / width - 0.5).clamp(min=0).minimum(w - 1.0) + left  # (B, W)
        y = ((2 * rows + 1) / height - 1)[:, :, None].expand(-1, -1, width)
        x = ((2 * columns + 1) / width - 1)[:, None, :].expand(-1, height, -1)
        return _sample(images, torch.stack([x, y], dim=-1))


class Rotate:
    """Turn about the centre by an angle uniform on ±degrees, bilinear; corners that come in are 0."""

    num_uniforms = 1

    def __init__(self, degrees: Annotated[float, Ge(0), Le(180)] = 10.0):
        self.degrees = degrees

    def angles(self, u: Tensor) -> Tensor:
        """Angle of each image in degrees, counter-clockwise, (B,)."""
        return self.degrees * (2 * u[:, 0] - 1)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        images = as_float(images)
        height, width = images.shape[-2:]
        angle = torch.deg2rad(self.angles(u))[:, None, None]
        cos, sin = angle.cos(), angle.sin()  # (B, 1, 1)
        y = (torch.arange(height) - (height - 1) / 2)[:, None]
        x = (torch.arange(width) - (width - 1) / 2)[None, :]
        # An output pixel looks up the input at its place turned back (the y axis points down).
        grid = torch.stack([(cos * x - sin * y) * 2 / width, (sin * x + cos * y) * 2 / height], dim=-1)
        return _sample(images, grid)


class Brightness:
    """Multiply by a factor uniform on 1 ± amount, and clip to [0, 1]."""

    num_uniforms = 1

    def __init__(self, amount: Annotated[float, Ge(0), Le(1)] = 0.2):
        self.amount = amount

    def factors(self, u: Tensor) -> Tensor:
        """The factor of each image, (B,)."""
        return 1 + self.amount * (2 * u[:, 0] - 1)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        return (as_float(images) * self.factors(u)[:, None, None, None]).clamp_(0, 1)


class Contrast(Brightness):
    """Move away from the image's mean grey by a factor uniform on 1 ± amount, and clip to [0, 1].

    Grey is 0.2989 R + 0.587 G + 0.114 B, as in torchvision; for images without three channels, their mean.
    """

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        images = as_float(images)
        channels = images.shape[1]
        weights = [0.2989, 0.587, 0.114] if channels == 3 else [1 / channels] * channels
        grey = torch.einsum("bchw,c->b", images, torch.tensor(weights)) / images[0, 0].numel()
        factor = self.factors(u)[:, None, None, None]
        return (images * factor).add_((1 - factor) * grey[:, None, None, None]).clamp_(0, 1)


class Augment:
    """The usual transformations of training images, each off unless its knob is turned.

    flip, vertical_flip: probability of mirroring. crop: pixels of zero padding before a random crop to the old size.
    translate: shift by at most so many pixels. scale: share of the area that a random crop, resized back, keeps.
    rotation: at most so many degrees. brightness, contrast: a factor in 1 ± so much.
    They happen in this order; with all of them off the batch passes through untouched.
    """

    def __init__(
        self,
        flip: Annotated[float, Ge(0), Le(1)] = 0.0,
        vertical_flip: Annotated[float, Ge(0), Le(1)] = 0.0,
        crop: Annotated[int, Ge(0), Le(1024)] = 0,
        translate: Annotated[int, Ge(0), Le(1024)] = 0,
        scale: Annotated[Sequence[Annotated[float, Gt(0), Le(1)]], Len(2, 2)] = (1.0, 1.0),
        rotation: Annotated[float, Ge(0), Le(180)] = 0.0,
        brightness: Annotated[float, Ge(0), Le(1)] = 0.0,
        contrast: Annotated[float, Ge(0), Le(1)] = 0.0,
    ):
        steps: list[Step | None] = [
            Flip(flip) if flip else None,
            Flip(vertical_flip, vertical=True) if vertical_flip else None,
            Crop(crop) if crop else None,
            Translate(translate) if translate else None,
            ScaledCrop(scale) if tuple(scale) != (1.0, 1.0) else None,
            Rotate(rotation) if rotation else None,
            Brightness(brightness) if brightness else None,
            Contrast(contrast) if contrast else None,
        ]
        self.steps = [step for step in steps if step is not None]
        self.num_uniforms = sum(step.num_uniforms for step in self.steps)

    def __call__(self, images: Tensor, u: Tensor | None) -> Tensor:
        if u is None:
            return images
        for step, draws in zip(self.steps, u.split([step.num_uniforms for step in self.steps], dim=1)):
            images = step(images, draws)
        return images


def as_float(images: Tensor) -> Tensor:
    """uint8 images in 0…255 → float32 in [0, 1]; floating-point images stay as they are."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear look-up at grid (B, H, W, 2), x before y, where −1 and 1 are the outer edges of the image; 0 outside."""
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
