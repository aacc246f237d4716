"""What a step costs where the model costs nothing: Linear 10 → 10, batches of 128, 469 steps an epoch (as MNIST has).

python -m experiments.performance.tiny_step
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch.nn.functional import cross_entropy

from dl_course import compose
from dl_course.data import DataModule, Split
from experiments.performance.loops import bare_arm, course_arm
from experiments.performance.timing import Row, interleaved, main

STEPS, BATCH = 469, 128


@dataclass(kw_only=True, eq=False, repr=False)
class Noise(DataModule):
    """Random inputs (10,) and random classes, ten of them: `steps` training batches and one for validation."""

    steps: int = STEPS

    @property
    def class_names(self) -> list[str]:
        return [str(i) for i in range(10)]

    def load(self) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(0)
        sizes = {"train": self.steps * BATCH, "val": BATCH}
        return {
            name: Split(torch.randn(n, 10, generator=generator), torch.randint(0, 10, (n,), generator=generator))
            for name, n in sizes.items()
        }


def tiny_config(epochs: int) -> DictConfig:
    """The softmax experiment on ten inputs: Adam, cross-entropy, the default callbacks, curves and checkpoints."""
    return compose(
        "softmax_digits",
        [f"trainer.max_epochs={epochs}", "data.num_features=10", "model.metrics=[]", "callbacks.graph=true"],
    )


def measure(rounds: int = 7, quick: bool = False) -> list[Row]:
    """One row: a step of the course against a bare step, fixed costs of a run spread over ten epochs."""
    epochs, steps = (1, 3) if quick else (10, STEPS)
    config, data = tiny_config(epochs), Noise(batch_size=BATCH, steps=steps)
    data.setup()
    times = interleaved(
        {
            "course": lambda: course_arm(config, data),
            "bare loop": lambda: bare_arm(config, data, cross_entropy),
        },
        rounds,
    )
    ours, reference = (arm.per(epochs * steps) for arm in times.values())
    return [Row(what="one step of a tiny model (Linear 10→10, batch 128)", ours=ours, reference=reference, bar=2.3)]


if __name__ == "__main__":
    main(measure)
