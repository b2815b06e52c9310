"""Word edges moved to the sound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vermilion.transcript import Word
from vermilion.word_edges import fitted, sounding

RATE = 16000


def recording(*parts):
    """Parts in turn: seconds of sound (above 0) or of silence (below), or (seconds, level) of sound."""
    rng = np.random.default_rng(0)
    made = []
    for part in parts:
        seconds, level = part if isinstance(part, tuple) else (part, 0.1)
        count = round(abs(seconds) * RATE)
        noise = rng.standard_normal(count)
        made.append(noise * (level if seconds > 0 else 1e-4))
    return np.concatenate(made).astype(np.float32)


def times(words):
    return [(w.start, w.end) for w in words]


def near(*pairs):
    return [pytest.approx(pair, abs=0.011) for pair in pairs]


THREE = (-0.5, 0.5, -0.5, 0.5, -0.5, 0.5, -0.5)
"""sounds at 0.5, 1.5 and 2.5 s, half a second each"""


def test_sound_is_found_and_the_closure_of_a_stop_is_no_pause():
    assert sounding(recording(*THREE)) == near((0.5, 1.0), (1.5, 2.0), (2.5, 3.0))
    assert sounding(recording(-0.5, 0.3, -0.07, 0.3, -0.5)) == near((0.5, 1.17))
    assert sounding(recording(-0.5, 0.02, -0.5, 0.5, -0.3)) == near((1.02, 1.52))


def test_words_that_begin_in_the_pause_begin_with_their_sound():
    got = fitted([Word("a", 0.0, 0.9), Word("b", 1.0, 1.8), Word("c", 1.9, 2.9)], recording(*THREE))
    assert times(got) == near((0.5, 1.0), (1.5, 2.0), (2.5, 3.0))


def test_words_that_last_until_the_next_end_with_their_sound():
    got = fitted([Word("a", 0.54, 1.45), Word("b", 1.55, 2.45), Word("c", 2.55, 3.4)], recording(*THREE))
    assert times(got) == near((0.5, 1.0), (1.5, 2.0), (2.5, 3.0))


def test_edges_between_words_without_a_pause_stay():
    got = fitted([Word("a", 0.4, 0.8), Word("b", 0.8, 1.2), Word("c", 1.2, 1.7)], recording(-0.5, 1.0, -0.5))
    assert times(got) == near((0.5, 0.8), (0.8, 1.2), (1.2, 1.5))


def test_edges_do_not_move_far_into_sound_that_may_be_another_word():
    samples = recording(-0.5, 2.0, -0.5)
    [got] = fitted([Word("late", 1.5, 1.9)], samples)
    assert (got.start, got.end) == (1.5, 1.9)


def test_a_soft_voice_after_a_loud_one_is_no_pause():
    samples = recording(-0.5, (1.0, 0.3), -1.5, (1.0, 0.004), -0.5)
    assert times(fitted([Word("loud", 0.3, 1.6), Word("soft", 2.5, 4.2)], samples)) == near((0.5, 1.5), (3.0, 4.0))


def test_without_contrast_nothing_moves():
    words = [Word("a", 0.1, 0.9), Word("b", 1.0, 1.9)]
    assert fitted(words, recording(2.0)) == words
    assert fitted(words, np.zeros(2 * RATE, np.float32)) == words
    assert fitted(words, np.zeros(0, np.float32)) == words
    assert fitted([], recording(*THREE)) == []


def test_text_and_confidence_stay():
    [got] = fitted([Word("a", 0.0, 0.9, 0.7)], recording(*THREE))
    assert (got.text, got.confidence) == ("a", 0.7)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=12), st.lists(st.integers(-80, 80), min_size=3, max_size=9))
def test_words_stay_in_order_and_in_the_recording(edges, lengths):
    samples = recording(*(n / 100 for n in lengths if n), -0.2)
    end = len(samples) / RATE
    marks = sorted(min(e / 100, end) for e in edges)
    words = [Word("x", a, b) for a, b in zip(marks[::2], marks[1::2], strict=False)]
    got = fitted(words, samples)
    assert all(0 <= w.start <= w.end <= round(end, 3) for w in got)
    assert all(a.end <= b.start + 1e-3 for a, b in zip(got, got[1:], strict=False))
