"""The statistics of the criteria against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from experiments.statistics import interval, log_slope, paired_interval


def test_paired_interval_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 7), rng.normal(0.2, 1.0, 7)
    ours = paired_interval(a.tolist(), b.tolist())
    reference = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert np.allclose([ours.low, ours.high], [reference.low, reference.high], rtol=1e-12)
    assert ours.mean == pytest.approx((a - b).mean())


def test_interval_knows_its_side_of_zero():
    assert interval([1.0, 1.1, 0.9, 1.2, 1.0]).above_zero
    assert interval([-1.0, -1.1, -0.9, -1.2, -1.0]).below_zero
    around = interval([1.0, -1.1, 0.9, -1.2, 1.0])
    assert not around.above_zero
    assert not around.below_zero
    assert str(interval([1.0, 2.0, 3.0])) == "2 [-0.484, 4.48]"


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = sum(i.low < 3 < i.high for i in (interval(rng.normal(3, 2, 5).tolist()) for _ in range(2000)))
    assert 0.935 < covered / 2000 < 0.965


def test_too_few_and_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="1 values have no spread"):
        interval([1.0])
    with pytest.raises(ValueError, match="2 and 3 values are no pairs"):
        paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])


def test_log_slope_finds_the_exponent():
    x = np.array([1.0, 2.0, 5.0, 11.0])
    assert log_slope(x.tolist(), (3 * x**-0.5).tolist()) == pytest.approx(-0.5)
