"""Voice activity at matched operating points (benchmarks/real/matched.py)."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent.parent / "benchmarks" / "real"
if not HERE.is_dir():
    pytest.skip("benchmarks/ is not part of this copy", allow_module_level=True)


@pytest.fixture
def matched(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    yield importlib.import_module("matched")
    sys.modules.pop("matched", None)


def frames(matched, shift, seed, count=2000):
    """Frames of which half are speech; scores of speech lie higher by `shift`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 100 < 50
    scores = 1 / (1 + np.exp(-rng.normal(shift * labels, 1.0)))
    return matched.Frames(labels, scores.astype(np.float32))


def test_thresholds_give_the_false_alarms_that_were_asked_for_and_the_better_system_misses_less(matched):
    points = []
    for shift in (1.0, 3.0):
        speech = [frames(matched, shift, seed) for seed in range(12)]
        quiet = [
            matched.Frames(np.zeros(500, bool), frames(matched, 0.0, 99 + seed, 500).probabilities) for seed in range(4)
        ]
        point = matched.matched(speech, {"quiet": quiet})
        pauses = np.concatenate([f.probabilities[~f.labels] for f in speech])
        assert np.mean(pauses >= point.threshold) == pytest.approx(0.05, abs=0.001)
        missed = np.mean(np.concatenate([f.probabilities[f.labels] for f in speech]) < point.threshold)
        assert point.misses.value == pytest.approx(missed, abs=0.001)
        assert point.misses.low <= point.misses.value <= point.misses.high
        assert point.silent["quiet"].value == pytest.approx(0.05, abs=0.02)
        points.append(point)
    assert points[1].misses.high < points[0].misses.low
    assert matched.matched(speech, {"quiet": quiet}) == points[1]  # the same every time


def test_a_system_that_is_always_right_misses_nothing(matched):
    labels = np.arange(400) % 100 < 50
    point = matched.matched([matched.Frames(labels, labels.astype(np.float32))] * 3, {})
    assert (point.misses.value, point.misses.low) == (0.0, 0.0)
    assert 0.5 < point.misses.high < 0.6  # three recordings cannot say more
