"""A whole small experiment: car prices by linear regression, 100 epochs of 12 steps.

python -m experiments.performance.linear_regression
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import mse_loss

from dl_course import compose
from dl_course.build import build_data
from experiments.performance.loops import bare_arm, course_arm
from experiments.performance.timing import Row, interleaved, main


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """prediction (B, 1), target (B,) → their mean squared difference, by torch."""
    return mse_loss(prediction.squeeze(-1), target)


def measure(rounds: int = 7, quick: bool = False) -> list[Row]:
    """One row: the training of `linear_cars` against a bare loop that also writes curves and a checkpoint."""
    epochs = 2 if quick else 100
    config = compose("linear_cars", ["data.batch_size=50", f"trainer.max_epochs={epochs}"])
    data = build_data(config)
    assert len(data.train_dataloader()) == 12
    times = interleaved(
        {
            "course": lambda: course_arm(config, data),
            "bare loop + TensorBoard + checkpoint": lambda: bare_arm(config, data, mse, records=True),
        },
        rounds,
    )
    ours, reference = times.values()
    return [Row(what=f"linear regression, {epochs} epochs of 12 steps", ours=ours, reference=reference, bar=3.5)]


if __name__ == "__main__":
    main(measure)
