"""Running means that cost one list append a step and are computed once an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Sample-weighted means of whatever a step returns.

    `add` appends detached tensors and computes nothing, because on a small model one logging call per step costs as
    much as the step itself. `mean` stacks them and returns Σ nᵢ·vᵢ / Σ nᵢ in float64; a value may have any shape (a
    metric that does not average hands in a statistic, see `dl_course.training.metrics`). Under `torch.distributed`
    both sums run over all processes.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._counts: dict[str, list[int]] = {}

    def add(self, values: Mapping[str, Tensor], count: int) -> None:
        """Append one batch of `count` samples; each value is the mean over that batch."""
        for name, value in values.items():
            if name not in self._values:
                self._values[name], self._counts[name] = [], []
            self._values[name].append(value.detach())
            self._counts[name].append(count)

    def mean(self) -> dict[str, Tensor]:
        """Name → mean over all samples since the last reset, float64, on the CPU."""
        means = {}
        for name, values in self._values.items():
            stacked = torch.stack(values).double()  # (steps, …)
            counts = torch.tensor(self._counts[name], dtype=torch.float64, device=stacked.device)  # (steps,)
            total, count = torch.tensordot(counts, stacked, dims=1), counts.sum()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(total)
                torch.distributed.all_reduce(count)
            means[name] = (total / count).cpu()
        return means

    def reset(self) -> None:
        self._values.clear()
        self._counts.clear()

    def state_dict(self) -> dict:
        """The raw values, not their sum: a resumed epoch must add up the same numbers in the same order."""
        return {
            name: {"values": torch.stack(v).cpu(), "counts": self._counts[name]} for name, v in self._values.items()
        }

    def load_state_dict(self, state: Mapping) -> None:
        self._values = {name: list(entry["values"].unbind(0)) for name, entry in state.items()}
        self._counts = {name: list(entry["counts"]) for name, entry in state.items()}
