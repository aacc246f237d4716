"""Losses of the lectures, written out, beside torch's fused ones, and the penalties that regularise them.

Sources: I2DL ch. 2, 3 and 7, TUM8, BONN ch. 3, NPFL3. A loss takes (prediction, target) and returns a scalar, the mean
over the batch. Classifiers pass scores ("logits"), not probabilities: the logarithm of a softmax or sigmoid is stable
only when it is taken together with it.

`loss("cross_entropy")` is torch's, `loss("cross_entropy", impl="scratch")` ours; `LOSSES` lists the names.
Letters: B batch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dl_course.errors import ConfigError, suggest
from dl_course.layers.activations import relu, softplus

LossName = Literal["mae", "mse", "bce", "cross_entropy", "hinge"]
Target = Literal["regression", "binary", "classes"]
LossFunction = Callable[[Tensor, Tensor], Tensor]

NO_CLASS = torch.iinfo(torch.int64).min  # torch's default, −100, would silently skip samples of "class" −100

# --- from scores to probabilities


def softmax(scores: Tensor, dim: int = -1) -> Tensor:
    """Softmax o_i = e^{z_i} / Σ_j e^{z_j}  (NPFL3). Shift-invariant; shifted so that nothing overflows."""
    powers = torch.exp(scores - scores.detach().amax(dim, keepdim=True))
    return powers / powers.sum(dim, keepdim=True)


def log_softmax(scores: Tensor, dim: int = -1) -> Tensor:
    """log softmax(z) = z − log Σ_j e^{z_j}, shifted as in `softmax`: finite even where the probability rounds to 0."""
    shifted = scores - scores.detach().amax(dim, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(dim, keepdim=True))


# --- the losses, written out


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 loss (1/n) Σ|y − ŷ| in units of y; its optimum is the median  (I2DL ch. 3 and 7).

    Shapes: (B,) or (B, 1) each, or any two equal ones, whose elements are then averaged → ().
    Raises: ValueError on other shapes; nothing is broadcast.
    """
    prediction, target = aligned(prediction, target)
    return (prediction - target).abs().mean()


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error (1/n) Σ(y − ŷ)² in squared units of y; its optimum is the mean  (I2DL ch. 2, 7). Shapes: `mae`."""
    prediction, target = aligned(prediction, target)
    difference = prediction - target
    return (difference * difference).mean()


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy −(1/n) Σ[y log σ(z) + (1 − y) log(1 − σ(z))] in nats  (I2DL ch. 2).

    Computed as (1/n) Σ[softplus(z) − yz], the same without a logarithm of 0.

    Shapes as in `mae`; targets are probabilities, mostly 0. and 1.
    """
    logits, target = aligned(logits, target)
    return (softplus(logits) - target * logits).mean()


def bce_of_probabilities(probability: Tensor, target: Tensor) -> Tensor:
    """`bce` of probabilities ŷ = σ(z) in nats, for models that give nothing else. Shapes as in `mae`.

    As in torch a logarithm is at least −100; below that its gradient is 0, so that certainty never gives NaN.
    Raises: ValueError if a probability is outside [0, 1].
    """
    probability, target = aligned(probability, target)
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        low, high = probability.min().item(), probability.max().item()
        raise ValueError(f"probabilities from {low:g} to {high:g} are not in [0, 1]; for logits there is bce")
    return -(target * _clipped_log(probability) + (1 - target) * _clipped_log(1 - probability)).mean()


def _clipped_log(p: Tensor) -> Tensor:
    positive = torch.where(p > 0, p, 1)
    return torch.where(p > 0, torch.log(positive), -100).clamp(min=-100)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy −(1/n) Σ_i Σ_k y_ik log softmax(z_i)_k in nats  (I2DL ch. 7, NPFL3).

    Its gradient by z_i is (softmax(z_i) − y_i)/n.

    Shapes: logits (B, K, …) with class indices (B, …) int64, or with soft targets (B, K, …) of floats → ().
    Raises: ValueError on other shapes and types, and on a class outside 0 … K − 1.
    """
    _require_classes(logits, target)
    log_p = log_softmax(logits, dim=1)
    if target.is_floating_point():
        return -(target * log_p).sum(1).mean()
    try:
        return -log_p.gather(1, target.unsqueeze(1)).mean()
    except RuntimeError:
        _require_range(logits, target)
        raise


def hinge(scores: Tensor, target: Tensor) -> Tensor:
    """Multiclass SVM loss (1/n) Σ_i Σ_{k≠y_i} max(0, s_ik − s_iy_i + 1) in units of the scores  (I2DL ch. 7, TUM8).

    The sum form of Weston & Watkins (1999). It "saturates": exactly 0, as its gradient, once every margin reaches 1.

    Shapes: scores (B, K), class indices (B,) int64 → ().
    Raises: ValueError as `cross_entropy`.
    Differs from `nn.MultiMarginLoss`, which divides the sum over k by K.
    """
    excess = _margin_excess(scores, target)
    return relu(excess).sum(1).mean()


def hinge_of_worst(scores: Tensor, target: Tensor) -> Tensor:
    """Multiclass SVM loss (1/n) Σ_i max(0, max_{k≠y_i} s_ik − s_iy_i + 1)  (Crammer & Singer 2001). Shapes: `hinge`."""
    excess = _margin_excess(scores, target)
    return relu(excess.amax(1)).mean()


def _margin_excess(scores: Tensor, target: Tensor) -> Tensor:
    """s_k − s_y + 1 for k ≠ y, and 0 for k = y. (B, K), (B,) → (B, K)."""
    _require_classes(scores, target, soft=False)
    column = target.unsqueeze(1)  # (B, 1)
    try:
        return (scores - scores.gather(1, column) + 1).scatter(1, column, 0.0)
    except RuntimeError:
        _require_range(scores, target)
        raise


def gaussian_nll(mean: Tensor, target: Tensor, variance: float | Tensor = 1.0) -> Tensor:
    """−log N(y; μ, σ²) = ½ log 2πσ² + (y − μ)²/(2σ²), the mean over the batch in nats  (I2DL ch. 2, BONN §3.12).

    Shapes: mean and target as in `mae`, variance a number or a tensor of the target's shape.
    """
    mean, target = aligned(mean, target)
    variance = torch.as_tensor(variance, dtype=mean.dtype, device=mean.device)
    return (0.5 * torch.log(2 * math.pi * variance) + (target - mean) ** 2 / (2 * variance)).mean()


# --- torch's


def _torch_mae(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        prediction, target = aligned(prediction, target)
    return F.l1_loss(prediction, target)


def _torch_mse(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        prediction, target = aligned(prediction, target)
    return F.mse_loss(prediction, target)


def _torch_bce(logits: Tensor, target: Tensor) -> Tensor:
    if logits.shape != target.shape:
        logits, target = aligned(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)


def _torch_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    try:  # torch checks the targets itself: a check of ours would be paid again at every step
        return F.cross_entropy(logits, target, ignore_index=NO_CLASS)
    except (RuntimeError, ValueError, IndexError):
        _require_classes(logits, target)
        _require_range(logits, target)
        raise


def _torch_hinge(scores: Tensor, target: Tensor) -> Tensor:
    try:
        return F.multi_margin_loss(scores, target) * scores.shape[1]
    except (RuntimeError, ValueError, IndexError):
        _require_classes(scores, target, soft=False)
        _require_range(scores, target)
        raise


# --- shapes and ranges


def aligned(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both with one shape: a last axis of size 1 that only one of them has is dropped.

    Raises: ValueError on any other difference, since broadcasting (B, 1) with (B,) would silently give (B, B).
    """
    if prediction.shape == target.shape:
        return prediction, target
    if prediction.shape == (*target.shape, 1):
        return prediction.squeeze(-1), target
    if target.shape == (*prediction.shape, 1):
        return prediction, target.squeeze(-1)
    raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} have different shapes")


def _require_classes(logits: Tensor, target: Tensor, soft: bool = True) -> None:
    """ValueError unless the target's shape and type fit classes or (where allowed) soft targets; reads no values."""
    shapes = f"logits {tuple(logits.shape)} and target {tuple(target.shape)} of {target.dtype}"
    expected = "classes (B,) of int64" + (" or soft targets (B, K) of floats" if soft else "")
    hard = logits.ndim >= 2 and target.shape == logits.shape[:1] + logits.shape[2:] and target.dtype == torch.int64
    if not hard and not (soft and target.shape == logits.shape and target.is_floating_point()):
        raise ValueError(f"{shapes} do not fit: for logits (B, K) expected {expected}")


def _require_range(logits: Tensor, target: Tensor) -> None:
    """ValueError if a class is not in 0 … K − 1. It waits for the device, so it is called after a failure only."""
    if not target.is_floating_point():
        num_classes = logits.shape[1]
        wrong = target[(target < 0) | (target >= num_classes)]
        if len(wrong):
            raise ValueError(f"class {wrong[0].item()} is not one of the {num_classes} classes 0 … {num_classes - 1}")


# --- the choice by name


class Loss(NamedTuple):
    """One loss: both implementations, the unit of its value, and the kind of target it is for."""

    torch: LossFunction
    scratch: LossFunction
    unit: str
    target: Target


LOSSES: dict[str, Loss] = {
    "mae": Loss(_torch_mae, mae, "units of the target", "regression"),
    "mse": Loss(_torch_mse, mse, "squared units of the target", "regression"),
    "bce": Loss(_torch_bce, bce, "nats", "binary"),
    "cross_entropy": Loss(_torch_cross_entropy, cross_entropy, "nats", "classes"),
    "hinge": Loss(_torch_hinge, hinge, "units of the scores", "classes"),
}


def loss(name: LossName, impl: Literal["torch", "scratch"] = "torch") -> LossFunction:
    """The loss function of that name: torch's fused one, or ours written out; equal in value and gradient.

    Raises: ConfigError if there is no loss of that name.
    """
    if name not in LOSSES:
        raise ConfigError(f"no loss is called '{name}'{suggest(name, LOSSES)}\nthere are: {', '.join(LOSSES)}")
    return LOSSES[name].scratch if impl == "scratch" else LOSSES[name].torch


# --- regularisation


def weights(module: nn.Module) -> list[nn.Parameter]:
    """What a penalty acts on: weight matrices and kernels; no biases, no normalisation, none frozen  (BONN §10.10)."""
    normalisation = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    found: dict[int, nn.Parameter] = {}  # by identity: a tied weight counts once
    for part in module.modules():
        if not isinstance(part, normalisation):
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.ndim >= 2 and "bias" not in name and parameter.requires_grad:
                    found[id(parameter)] = parameter
    return list(found.values())


def l1_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """‖w‖₁ = Σ|w|, to be multiplied by λ; its gradient is λ·sign w, 0 at 0  (I2DL, NPFL3)."""
    return sum((w.abs().sum() for w in parameters), start=torch.zeros(()))


def l2_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """½‖w‖² = ½ Σw², to be multiplied by λ; its gradient is λw  (BONN §10.11; I2DL, NPFL3 lack the ½: half our λ)."""
    flat = (w.flatten() for w in parameters)
    return 0.5 * sum((w @ w for w in flat), start=torch.zeros(()))


def regularized(loss: LossFunction, module: nn.Module, l1: float = 0.0, l2: float = 0.0) -> LossFunction:
    """The loss J with penalties on the module's weights: J + λ₁‖w‖₁ + ½λ₂‖w‖²  (I2DL ch. 7, NPFL3).

    Raises: ValueError if λ < 0, or if the module has no weights to penalise.
    """
    penalised = weights(module)
    if l1 < 0 or l2 < 0:
        raise ValueError(f"l1={l1} and l2={l2} must be ≥ 0")
    if (l1 or l2) and not penalised:
        raise ValueError(f"{type(module).__name__} has no weights that l1={l1} or l2={l2} could act on")

    def penalised_loss(prediction: Tensor, target: Tensor) -> Tensor:
        value = loss(prediction, target)
        if l1:
            value = value + l1 * l1_penalty(penalised)
        if l2:
            value = value + l2 * l2_penalty(penalised)
        return value

    return penalised_loss
