"""Frame and segment figures of voice activity against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from vermilion.errors import OptionsError
from vermilion.evaluation.voice_activity import (
    SegmentScore,
    event_score,
    frame_labels,
    frame_score,
    merged,
    roc_curve,
    segment_score,
)
from vermilion.transcript import Span


def test_labels_mark_frames_whose_middle_is_inside():
    assert frame_labels([Span(0.0, 0.03)], 5).tolist() == [True, True, True, False, False]
    assert frame_labels([Span(0.014, 0.026)], 5).tolist() == [False, True, True, False, False]
    assert frame_labels([Span(0.016, 0.024)], 5).tolist() == [False] * 5
    assert frame_labels([Span(0.03, 9.0), Span(0.0, 0.01)], 5).tolist() == [True, False, False, True, True]
    assert frame_labels([Span(0.29, 0.57)], 100).nonzero()[0].tolist() == list(range(29, 57))


def test_frames_by_hand():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool)
    got = frame_score(labels, np.array([0.9, 0.5, 0.1, 0.6, 0.2, 0.0, 0.1, 0.7]))
    assert (got.true_positives, got.false_positives, got.true_negatives, got.false_negatives) == (3, 1, 3, 1)
    assert (got.false_alarm_rate, got.miss_rate) == (0.25, 0.25)
    assert (got.precision, got.recall, got.f1) == (0.75, 0.75, 0.75)
    assert got.frames == 8


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=40))
def test_frames_equal_scikit_learn(rows):
    labels = np.array([r[0] for r in rows])
    probabilities = np.array([r[1] for r in rows], dtype=np.float32)
    got = frame_score(labels, probabilities)
    decisions = probabilities >= 0.5
    assert got.f1 == pytest.approx(metrics.f1_score(labels, decisions, zero_division=0))
    assert got.precision == pytest.approx(metrics.precision_score(labels, decisions, zero_division=0))
    assert got.recall == pytest.approx(metrics.recall_score(labels, decisions, zero_division=0))
    if labels.all() or not labels.any():
        assert got.auc is None
        assert roc_curve(labels, probabilities) is None
    else:
        assert got.auc == pytest.approx(metrics.roc_auc_score(labels, probabilities))


def test_decisions_without_probabilities_and_lengths_that_differ():
    labels = np.array([True, False])
    assert frame_score(labels, decisions=labels).auc is None
    assert frame_score(labels, decisions=labels).f1 == 1.0
    for wrong in ({}, {"decisions": np.array([True])}, {"probabilities": np.array([0.1])}):
        with pytest.raises(OptionsError):
            frame_score(labels, **wrong)


def test_events_that_sound_together():
    labels = {"speech": np.array([1, 1, 0], bool), "music": np.array([0, 1, 1], bool)}
    got = event_score(labels, {"speech": np.array([0.9, 0.8, 0.1]), "music": np.array([0.9, 0.8, 0.6])})
    assert got["speech"].f1 == 1.0
    assert (got["music"].false_positives, got["music"].auc) == (1, 0.0)
    with pytest.raises(OptionsError):
        event_score(labels, {"speech": np.zeros(3)})


def test_segments_by_hand():
    true = [Span(0, 2), Span(3, 4), Span(5, 7), Span(8, 9), Span(10, 11)]
    found = [Span(0.1, 1.8), Span(3.2, 6.5), Span(8, 8.4), Span(8.6, 9), Span(20, 21)]
    got = segment_score(true, found)
    assert (got.references, got.found, got.missed, got.false) == (5, 5, 1, 1)
    assert (got.splits, got.merges) == (1, 1)
    assert got.start_errors == pytest.approx((0.1,))
    assert got.end_errors == pytest.approx((-0.2,))
    assert got.missed_seconds == pytest.approx(0.3 + 0.2 + 0.5 + 0.2 + 1.0)
    assert got.false_seconds == pytest.approx(1.0 + 1.0)
    assert got.detection_error == pytest.approx((2.2 + 2.0) / 7)
    both = got + got
    assert (both.missed, both.start_errors) == (2, got.start_errors * 2)


def test_segments_that_touch_are_one_and_nothing_is_no_error():
    assert merged([Span(1, 2), Span(0, 1), Span(3, 3), Span(4, 5)]) == [Span(0, 2), Span(4, 5)]
    nothing = segment_score([], [])
    assert nothing == SegmentScore()
    assert nothing.start_error is None
    assert nothing.detection_error == 0.0


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=6)


@given(spans, spans)
def test_seconds_agree_with_frames(a, b):
    """Over whole frames, the segment seconds are the frame counts."""
    true, found = ([Span(s / 100, (s + n) / 100) for s, n in rows] for rows in (a, b))
    got = segment_score(true, found)
    frames = frame_score(frame_labels(true, 70), decisions=frame_labels(found, 70))
    assert got.missed_seconds == pytest.approx(frames.false_negatives / 100)
    assert got.false_seconds == pytest.approx(frames.false_positives / 100)
