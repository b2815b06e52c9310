"""Forced alignment: against a slow reading of the rules where scores tie, long texts, scores that are no numbers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vermilion.asr import forced_align
from vermilion.asr.aed import timed
from vermilion.asr.alignment import even_times, raw_times
from vermilion.errors import OptionsError
from vermilion.transcript import Token


def slow_align(scores, ids):
    """SPEC section 7 read line by line, state by state."""
    states = [0] + [x for i in ids for x in (i, 0)]
    best = [scores[0][k] if s < 2 else -np.inf for s, k in enumerate(states)]
    back = []
    for t in range(1, len(scores)):
        new, came = [], []
        for s, k in enumerate(states):
            stay = best[s]
            one = best[s - 1] if s >= 1 else -np.inf
            two = best[s - 2] if s >= 2 and k and k != states[s - 2] else -np.inf
            step = 1 if one > stay and one > two else 2 if two > one and two > stay else 0
            new.append([stay, one, two][step] + scores[t][k])
            came.append(s - step)
        best = new
        back.append(came)
    s = len(states) - 1 if best[-1] > best[-2] else len(states) - 2
    path = [states[s]]
    for came in reversed(back):
        s = came[s]
        path.append(states[s])
    return path[::-1]


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=8), st.integers(0, 10), st.integers(0, 10**6))
def test_ties_are_broken_as_published(ids, spare, seed):
    frames = len(ids) + sum(a == b for a, b in itertools.pairwise(ids)) + spare
    scores = -np.random.default_rng(seed).integers(0, 3, (frames, 4)).astype(np.float32)  # whole numbers: many ties
    assert forced_align(scores, ids).tolist() == slow_align(scores.tolist(), ids)


@pytest.mark.parametrize("count", [63, 64, 128, 700])
def test_long_texts(count):
    rng = np.random.default_rng(count)
    ids = rng.integers(1, 40, count).tolist()
    scores = rng.normal(size=(3 * count, 40)).astype(np.float32)
    path = forced_align(scores, ids)
    assert [k for k, _ in itertools.groupby(path.tolist()) if k] == ids


@pytest.mark.parametrize("labels", [[0], [2, 0, 3], [5], [-1]])
def test_labels_outside_the_vocabulary_are_refused(labels):
    with pytest.raises(OptionsError, match="between 1 and 4"):
        forced_align(np.zeros((9, 5), np.float32), labels)


def test_scores_that_are_no_numbers_give_no_alignment():
    scores = np.zeros((6, 3), np.float32)
    assert forced_align(scores + np.float32("nan"), [1, 2]) is None
    scores[:, 2] = -np.inf
    assert forced_align(scores, [1, 2]) is None
    assert forced_align(scores, [1]) is not None
    assert forced_align(scores[:0], [1]) is None
    assert forced_align(scores, []) is None


def test_no_label_no_times():
    assert raw_times([0, 0, 0]) == ([], [])
    assert raw_times([]) == ([], [])
    assert even_times(0, 1.0) == ([], [])
    assert timed([], None, 1.0) == []


@given(st.integers(1, 200), st.floats(0.025, 2.0))
def test_spread_tokens_keep_their_order_however_short_the_audio(count, duration):
    found = timed([Token(7, "x", 0.5)] * count, None, duration)
    assert all(0 <= t.start <= t.end <= round(duration, 3) + 1e-9 for t in found)
    assert all(a.start <= b.start for a, b in itertools.pairwise(found))


def test_the_published_rows(golden):
    import json

    cases = json.loads((golden / "manifest.json").read_text(encoding="utf8"))["cases"]
    rows = json.loads((golden / next(c for c in cases if c["kind"] == "ctc_times")["expected"]).read_text())["rows"]
    for row in rows:
        starts, ends = raw_times(row["alignment"])
        assert starts == pytest.approx(row["starts"], abs=1e-3)
        assert ends == pytest.approx(row["ends"], abs=1e-3)
