"""Intervals and paired tests: against scipy, and where the answer is known."""

import numpy as np
import pytest
from scipy import stats

from vermilion.errors import OptionsError
from vermilion.evaluation import significance
from vermilion.evaluation.significance import difference, interval, wilson


def counts(n, rate, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 20, n)
    return rng.binomial(lengths, rate), lengths


def test_an_interval_is_that_of_scipy():
    errors, lengths = counts(200, 0.2, 0)
    got = interval(errors, lengths, resamples=4000)
    theirs = stats.bootstrap(
        (errors, lengths), lambda e, n, axis=-1: e.sum(axis) / n.sum(axis), paired=True, method="percentile",
        n_resamples=4000, rng=np.random.default_rng(5), vectorized=True,
    ).confidence_interval  # fmt: skip
    assert got.value == pytest.approx(errors.sum() / lengths.sum())
    assert got.low == pytest.approx(theirs.low, abs=0.002)
    assert got.high == pytest.approx(theirs.high, abs=0.002)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(100):
        got = interval(*counts(150, 0.2, seed), resamples=300)
        hits += got.low <= 0.2 <= got.high
    assert 86 <= hits <= 100


@pytest.mark.parametrize(("wrong", "count"), [(0, 60), (3, 60), (50, 50), (1, 1), (17, 400)])
def test_a_share_of_recordings_has_the_interval_of_scipy(wrong, count):
    theirs = stats.binomtest(wrong, count).proportion_ci(0.95, "wilson")
    got = interval([1] * wrong + [0] * (count - wrong), [1] * count)
    assert (got.low, got.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert got == wilson(wrong / count, count)


def test_nothing_wrong_is_not_certain_to_stay_so():
    """No error in 60 recordings of ten words each: what 60 trials say, not what 600 would."""
    got = interval([0] * 60, [10] * 60)
    assert (got.value, got.low) == (0.0, 0.0)
    assert got.high == pytest.approx(stats.binomtest(0, 60).proportion_ci(0.95, "wilson").high)
    one = interval([2], [40])
    assert one.low < 0.05 < one.high
    assert interval([0.0] * 9, [3] * 9, share=False).high == 0.0  # seconds are no share
    assert interval([30], [10]).high == 3.0  # more errors than words


def test_small_chunks_change_nothing_but_memory(monkeypatch):
    errors, lengths = counts(50, 0.2, 0)
    whole = interval(errors, lengths, resamples=101)
    monkeypatch.setattr(significance, "_CHUNK_ELEMENTS", 500)
    assert interval(errors, lengths, resamples=101) == whole


def test_a_clear_difference_and_none():
    a, lengths = counts(300, 0.1, 1)
    b, _ = counts(300, 0.2, 2)
    clear = difference(np.minimum(a, lengths), np.minimum(b, lengths), lengths)
    assert clear.significant
    assert clear.p < 0.01
    assert clear.high < 0
    assert clear.better == 1.0
    same = difference(a, a, lengths)
    assert (same.value, same.p, same.significant) == (0.0, 1.0, False)


def test_p_equals_the_sign_flip_test_worked_out_in_full():
    """Four recordings: of the 16 ways to swap, 2 reach |3+2+1+1| = 7."""
    got = difference([3, 2, 1, 1], [0, 0, 0, 0], [5, 5, 5, 5], resamples=20000)
    assert got.value == pytest.approx(7 / 20)
    assert got.p == pytest.approx(2 / 16, abs=0.01)
    assert not got.significant


def test_nothing_or_lists_of_different_length_are_refused():
    for wrong in (([], []), ([1], [1, 2]), (1, 1)):
        with pytest.raises(OptionsError):
            interval(*wrong)
    with pytest.raises(OptionsError):
        difference([1, 2], [1], [1, 1])
