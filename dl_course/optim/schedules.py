"""Learning-rate schedules, `(optimizer, total_steps, steps_per_epoch) -> LRScheduler`, stepped with the optimiser.

Each is a pure function from the number of steps taken, t, to a factor of the optimiser's own rate: ε_t = ε·factor(t).
T is total_steps; from T on the factor stays what it was at T, so that training may go on longer than planned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

Share = Annotated[float, Ge(0), Le(1)]
Factor = Annotated[float, Gt(0), Le(1)]


def cosine(
    optimizer: Optimizer,
    total_steps: Annotated[int, Ge(1)],
    steps_per_epoch: Annotated[int, Ge(1)],
    *,
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0,
    final: Share = 0.0,
) -> LRScheduler:
    """Linear warm-up over `warmup`·T steps, then half a cosine down to `final`  (Loshchilov & Hutter 2017).

    factor = final + (1 − final)·(1 + cos πs)/2, s from 0 at the end of the warm-up to 1 at T.
    """
    rise = min(round(warmup * total_steps), total_steps - 1)

    def factor(t: int) -> float:
        if t < rise:
            return _rising(t, rise)
        return _between(1.0, final, _cosine_share((t - rise) / (total_steps - rise)))

    return _schedule(optimizer, total_steps, factor)


def warmup(
    optimizer: Optimizer,
    total_steps: Annotated[int, Ge(1)],
    steps_per_epoch: Annotated[int, Ge(1)],
    *,
    warmup: Share = 0.1,
) -> LRScheduler:
    """Linear warm-up, then constant: factor = min(1, (t + 1)/(warmup·T + 1))  (Goyal et al. 2017)."""
    rise = round(warmup * total_steps)
    return _schedule(optimizer, total_steps, lambda t: _rising(t, rise))


def linear(
    optimizer: Optimizer,
    total_steps: Annotated[int, Ge(1)],
    steps_per_epoch: Annotated[int, Ge(1)],
    *,
    decay: Annotated[float, Gt(0), Le(1)] = 1.0,
    final: Share = 0.0,
) -> LRScheduler:
    """Linear to constant: ε_t = (1 − s)·ε + s·final·ε with s = t/(decay·T), and s = 1 afterwards (BONN ch. 6.4)."""
    fall = max(1, round(decay * total_steps))
    return _schedule(optimizer, total_steps, lambda t: _between(1.0, final, min(1.0, t / fall)))


def step(
    optimizer: Optimizer,
    total_steps: Annotated[int, Ge(1)],
    steps_per_epoch: Annotated[int, Ge(1)],
    *,
    epochs: Annotated[int, Ge(1)] = 10,
    gamma: Factor = 0.1,
) -> LRScheduler:
    """Step decay: factor = γ^⌊t/(epochs·steps_per_epoch)⌋ (I2DL ch. 6)."""
    every = epochs * steps_per_epoch
    return _schedule(optimizer, total_steps, lambda t: gamma ** (t // every))


def exponential(
    optimizer: Optimizer,
    total_steps: Annotated[int, Ge(1)],
    steps_per_epoch: Annotated[int, Ge(1)],
    *,
    gamma: Factor = 0.95,
) -> LRScheduler:
    """Exponential decay: factor = γ^(t/steps_per_epoch), γ per epoch (I2DL ch. 6)."""
    return _schedule(optimizer, total_steps, lambda t: gamma ** (t / steps_per_epoch))


def onecycle(
    optimizer: Optimizer,
    total_steps: Annotated[int, Ge(1)],
    steps_per_epoch: Annotated[int, Ge(1)],
    *,
    warmup: Annotated[float, Gt(0), Lt(1)] = 0.3,
    start_div: Annotated[float, Ge(1)] = 25.0,
    final_div: Annotated[float, Ge(1)] = 1e4,
) -> LRScheduler:
    """One cycle: half a cosine up from ε/start_div to ε, another down to ε/(start_div·final_div) (Smith & Topin 2019).

    Differs from torch's OneCycleLR: momentum is left alone, and ε is the largest rate, as in every other schedule.
    """
    start = 1.0 / start_div
    peak = warmup * total_steps - 1
    fall = max(total_steps - 1 - peak, 1e-9)

    def factor(t: int) -> float:
        if t <= peak:
            return _between(start, 1.0, _cosine_share(t / peak if peak > 0 else 1.0))
        return _between(1.0, start / final_div, _cosine_share(min(1.0, (t - peak) / fall)))

    return _schedule(optimizer, total_steps, factor)


def _schedule(optimizer: Optimizer, total_steps: int, factor: Callable[[int], float]) -> LRScheduler:
    return LambdaLR(optimizer, lambda t: factor(min(t, total_steps)))


def _rising(t: int, rise: int) -> float:
    """Linear from 1/(rise + 1) at t = 0 to 1 at t = rise: no step is wasted on a rate of 0."""
    return min(1.0, (t + 1) / (rise + 1))


def _between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


def _cosine_share(s: float) -> float:
    """0 at s = 0, 1 at s = 1, flat at both ends."""
    return (1.0 - math.cos(math.pi * s)) / 2.0
