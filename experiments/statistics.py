"""The few statistics that criteria need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values, one per seed: x̄ ± t · s/√n."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        raise ValueError(f"{len(x)} values have no spread; an interval needs at least 2, a claim at least 5")
    half = scipy.stats.t.ppf(0.5 + confidence / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """The interval of the mean of a − b, both measured on the same seeds. A claim without a number of its own is
    supported where this interval, over at least 5 seeds, excludes 0 on the right side (`above_zero`, `below_zero`)."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values are no pairs")
    return interval(np.subtract(a, b).tolist(), confidence)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent p of y ∝ xᵖ: slope of the least-squares line through (log x, log y)."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
