"""Metrics of predictions against targets, each written as the mean of a statistic and a function of that mean.

A metric such as accuracy is a mean over samples. One such as R² is not: it is a function of several means. Both fit
one form, `finish(mean over all samples of statistic)`, so that any number of batches or processes gives the value that
the whole split would give at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MetricName = Literal["accuracy", "top5", "mae", "rmse", "r2"]


@dataclass(frozen=True)
class Metric:
    """`statistic(prediction, target)` → its mean over the batch (any shape); `finish(mean)` → the metric.

    `higher_is_better` decides which checkpoint counts as best when the metric is monitored.
    """

    statistic: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[Tensor], Tensor] = lambda mean: mean
    higher_is_better: bool = True


def _aligned(prediction: Tensor, target: Tensor) -> Tensor:
    """prediction (B, 1) or (B,) → (B,), to stand beside target (B,). Raises ValueError on any other pair of shapes."""
    if prediction.ndim == target.ndim + 1 and prediction.shape[-1] == 1:
        prediction = prediction.squeeze(-1)
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} does not fit target {tuple(target.shape)}")
    return prediction


def correct(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of samples classified right. prediction (B, C) scores with target (B,) int, or (B, 1) logits with target
    (B,) in {0, 1} (class 1 where the logit is positive); target (B, C) probabilities count by their largest entry."""
    if prediction.shape[-1] > 1 and prediction.ndim > 1:
        if target.ndim == prediction.ndim:
            target = target.argmax(-1)
        return (prediction.argmax(-1) == target).float().mean()
    return ((_aligned(prediction, target) > 0) == (target > 0.5)).float().mean()


def correct_in_top5(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of samples whose class is among the five highest scores. prediction (B, C ≥ 5), target (B,) int."""
    return (prediction.topk(5, dim=-1).indices == target.unsqueeze(-1)).any(-1).float().mean()


def _moments(prediction: Tensor, target: Tensor) -> Tensor:
    """(3,): mean of (y − ŷ)², of y and of y², in float64 because R² subtracts two large numbers."""
    prediction, target = _aligned(prediction, target).double(), target.double()
    return torch.stack([(target - prediction).square().mean(), target.mean(), target.square().mean()])


def _r2(moments: Tensor) -> Tensor:
    """R² = 1 − Σ(y − ŷ)²/Σ(y − ȳ)²; of equal targets 1 if they are predicted exactly, else 0, as in scikit-learn."""
    error, mean, square = moments
    variance = square - mean.square()
    if variance <= 1e-14 * square:  # rounding
        return (error == 0).double()
    return 1 - error / variance


METRICS: dict[str, Metric] = {
    "accuracy": Metric(correct),
    "top5": Metric(correct_in_top5),
    "mae": Metric(lambda p, y: (_aligned(p, y) - y).abs().mean(), higher_is_better=False),
    "rmse": Metric(lambda p, y: (_aligned(p, y) - y).square().mean(), torch.sqrt, higher_is_better=False),
    "r2": Metric(_moments, _r2),
}

# Metrics of rooms that compute them in their own `step` rather than from a (prediction, target) pair.
_HIGHER = {"iou", "dice", "exact_match", "bleu", "return", "success", "modes"}


def higher_is_better(tag: str) -> bool:
    """Whether a tag `stage/name` such as `val/accuracy` is to be maximised; losses and errors are not."""
    name = tag.rsplit("/", 1)[-1]
    return METRICS[name].higher_is_better if name in METRICS else name in _HIGHER
