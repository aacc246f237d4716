"""Means over an epoch equal the value on the whole split at once, however it was cut into batches."""

from __future__ import annotations

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn import functional as F

from dl_course.training.meter import Meter
from dl_course.training.metrics import METRICS, higher_is_better

BATCHES = (13, 7, 1, 2)  # together 23 samples


def through_batches(name: str, prediction: torch.Tensor, target: torch.Tensor) -> float:
    meter = Meter()
    for p, y in zip(prediction.split(BATCHES), target.split(BATCHES)):
        meter.add({name: METRICS[name].statistic(p, y)}, len(y))
    return METRICS[name].finish(meter.mean()[name]).item()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mae", sklearn_metrics.mean_absolute_error),
        ("rmse", lambda y, p: sklearn_metrics.mean_squared_error(y, p) ** 0.5),
        ("r2", sklearn_metrics.r2_score),
    ],
)
def test_regression_metrics_equal_scikit_learn(name, reference):
    target = torch.randn(23) * 5 + 100
    prediction = target + torch.randn(23)
    assert through_batches(name, prediction.unsqueeze(-1), target) == pytest.approx(
        reference(target.numpy(), prediction.numpy()), rel=1e-5
    )


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_r2_of_equal_targets_is_scikit_learn_s_and_stays_finite(shift):
    target = torch.full((23,), 24300.3)  # a small table may well hold out rows with one value
    expected = sklearn_metrics.r2_score(target.double().numpy(), (target + shift).double().numpy())
    assert through_batches("r2", target + shift, target) == expected


def test_classification_metrics_equal_scikit_learn():
    scores, target = torch.randn(23, 11), torch.randint(0, 11, (23,))
    expected = sklearn_metrics.accuracy_score(target, scores.argmax(-1))
    assert through_batches("accuracy", scores, target) == pytest.approx(expected, rel=1e-6)
    expected = sklearn_metrics.top_k_accuracy_score(target, scores, k=5, labels=range(11))
    assert through_batches("top5", scores, target) == pytest.approx(expected, rel=1e-6)


def test_binary_accuracy_thresholds_the_logit_at_zero():
    logits, target = torch.tensor([[-0.1], [0.2], [3.0]]), torch.tensor([0.0, 1.0, 0.0])
    assert METRICS["accuracy"].statistic(logits, target).item() == pytest.approx(2 / 3)


def test_accuracy_of_soft_targets_counts_their_largest_entry():
    scores, target = torch.randn(7, 3), torch.randint(0, 3, (7,))
    soft = F.one_hot(target, 3) * 0.8 + 0.05
    assert METRICS["accuracy"].statistic(scores, soft) == METRICS["accuracy"].statistic(scores, target)


def test_shapes_that_do_not_fit_are_refused_with_both_named():
    with pytest.raises(ValueError, match=r"\(5, 3\) does not fit target \(5,\)"):
        METRICS["mae"].statistic(torch.zeros(5, 3), torch.zeros(5))


def test_mean_is_weighted_by_samples_not_by_batches():
    meter = Meter()
    meter.add({"loss": torch.tensor(1.0)}, 30)
    meter.add({"loss": torch.tensor(5.0)}, 10)
    assert meter.mean()["loss"].item() == 2.0


def test_a_restored_meter_goes_on_to_the_same_bits():
    values = torch.rand(17)
    whole, first, second = Meter(), Meter(), Meter()
    for i, value in enumerate(values):
        whole.add({"loss": value}, i + 1)
        if i < 8:
            first.add({"loss": value}, i + 1)
    second.load_state_dict(first.state_dict())
    for i, value in enumerate(values[8:], 8):
        second.add({"loss": value}, i + 1)
    assert second.mean()["loss"].item() == whole.mean()["loss"].item()


@pytest.mark.parametrize(
    ("tag", "up"), [("val/accuracy", True), ("val/r2", True), ("val/loss", False), ("val/mae", False)]
)
def test_direction_follows_from_the_name(tag, up):
    assert higher_is_better(tag) is up
