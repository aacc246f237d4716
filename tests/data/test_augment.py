"""Each augmentation equals torchvision applied image by image with the same draw; knobs that are off change no bit."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from dl_course.data.augment import (
    Augment,
    Brightness,
    Contrast,
    Crop,
    Flip,
    Rotate,
    ScaledCrop,
    Translate,
)

B, C, H, W = 29, 3, 13, 11


@pytest.fixture(params=[torch.uint8, torch.float32], ids=["uint8", "float"])
def images(request) -> torch.Tensor:
    pixels = torch.randint(0, 256, (B, C, H, W), dtype=torch.uint8)
    return pixels if request.param == torch.uint8 else pixels.float() / 255


def draws(step) -> torch.Tensor:
    return torch.rand(B, step.num_uniforms)


@pytest.mark.parametrize("vertical", [False, True])
def test_flip_matches_torchvision(images, vertical):
    step = Flip(0.3, vertical=vertical)
    u = draws(step)
    flip = reference.vertical_flip if vertical else reference.horizontal_flip
    expected = [flip(image) if draw < 0.3 else image for image, draw in zip(images, u[:, 0])]
    assert 0 < int((u[:, 0] < 0.3).sum()) < B
    assert torch.equal(step(images, u), torch.stack(expected))


def test_crop_matches_torchvision(images):
    step = Crop(3)
    u = draws(step)
    offsets = step.offsets(u).tolist()
    expected = [
        reference.crop(reference.pad(image, [3]), top, left, H, W) for image, (top, left) in zip(images, offsets)
    ]
    assert torch.equal(step(images, u), torch.stack(expected))
    assert len({tuple(pair) for pair in offsets}) > 10  # every image has its own window


def test_crop_offsets_are_uniform_and_reach_both_ends():
    step = Crop(2)
    offsets = step.offsets(torch.linspace(0, 1 - 1e-7, 5000)[:, None].expand(-1, 2))
    assert torch.bincount(offsets[:, 0]).tolist() == [1000] * 5


def test_translate_matches_torchvision(images):
    step = Translate(4)
    u = draws(step)
    shifts = (4 - step.offsets(u)).tolist()  # a window further down shows the image further up
    expected = [
        reference.affine(image, angle=0, translate=[dx, dy], scale=1, shear=[0, 0])
        for image, (dy, dx) in zip(images, shifts)
    ]
    assert torch.equal(step(images, u), torch.stack(expected))


def test_scaled_crop_matches_torchvision(images):
    step = ScaledCrop([0.2, 1.0])
    u = draws(step)
    floats = images if images.is_floating_point() else images / 255
    expected = [
        reference.resized_crop(image, *box, size=[H, W], interpolation=InterpolationMode.BILINEAR, antialias=False)
        for image, box in zip(floats, step.boxes(u, H, W).tolist())
    ]
    torch.testing.assert_close(step(images, u), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_scaled_crop_boxes_lie_inside_and_keep_the_share_of_the_area():
    step = ScaledCrop([0.3, 0.6])
    top, left, h, w = step.boxes(torch.rand(10_000, 3), 64, 64).unbind(1)
    assert int(top.min()) == 0
    assert int((top + h).max()) == 64
    assert int((left + w).max()) == 64
    share = (h * w) / 64**2
    assert 0.28 < float(share.min()) < 0.32
    assert 0.58 < float(share.max()) < 0.62
    assert abs(float(share.mean()) - 0.45) < 0.01


def test_rotation_matches_torchvision(images):
    step = Rotate(40.0)
    u = draws(step)
    floats = images if images.is_floating_point() else images / 255
    expected = [
        reference.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
        for image, angle in zip(floats, step.angles(u).tolist())
    ]
    torch.testing.assert_close(step(images, u), torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_a_quarter_turn_is_exact_on_a_square():
    image = torch.arange(49.0).reshape(1, 1, 7, 7) / 49
    turned = Rotate(90.0)(image, torch.ones(1, 1))
    torch.testing.assert_close(turned, torch.rot90(image, 1, dims=(2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("step", "function"), [(Brightness(0.7), "adjust_brightness"), (Contrast(0.7), "adjust_contrast")]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_and_contrast_match_torchvision(images, step, function, channels):
    images = images[:, :channels]
    u = draws(step)
    floats = images if images.is_floating_point() else images / 255
    adjust = getattr(reference, function)
    expected = [adjust(image, factor) for image, factor in zip(floats, step.factors(u).tolist())]
    torch.testing.assert_close(step(images, u), torch.stack(expected), atol=2e-6, rtol=1e-5)


def test_everything_off_changes_no_bit(images):
    augment = Augment()
    assert augment.num_uniforms == 0
    assert augment(images, None) is images


@pytest.mark.parametrize(
    "knob",
    [
        {"flip": 0.5},
        {"vertical_flip": 0.5},
        {"crop": 2},
        {"translate": 2},
        {"scale": [0.5, 1.0]},
        {"rotation": 20.0},
        {"brightness": 0.3},
        {"contrast": 0.3},
    ],
    ids=lambda knob: next(iter(knob)),
)
def test_each_knob_works_alone_and_by_sample(images, knob):
    augment = Augment(**knob)
    u = draws(augment)
    whole = augment(images, u)
    assert whole.shape == images.shape
    assert not torch.equal(whole.float(), images.float())
    some = torch.tensor([17, 3, 5])  # an image's result does not depend on its batch
    torch.testing.assert_close(augment(images[some], u[some]), whole[some], atol=1e-6, rtol=0)


def test_all_knobs_together_are_the_steps_in_order(images):
    augment = Augment(flip=0.5, crop=1, translate=1, scale=[0.6, 0.9], rotation=15.0, brightness=0.2, contrast=0.2)
    u = draws(augment)
    expected, column = images, 0
    for step in [
        Flip(0.5),
        Crop(1),
        Translate(1),
        ScaledCrop([0.6, 0.9]),
        Rotate(15.0),
        Brightness(0.2),
        Contrast(0.2),
    ]:
        expected = step(expected, u[:, column : column + step.num_uniforms])
        column += step.num_uniforms
    assert torch.equal(augment(images, u), expected)
    assert np.isfinite(expected.numpy()).all()


def test_a_reversed_scale_is_refused():
    with pytest.raises(ValueError, match=r"scale=\[0.9, 0.5\]"):
        ScaledCrop([0.9, 0.5])
