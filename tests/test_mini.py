"""The mini set of recipes/mini: it loads by its name, and its detector finds the speech of a real recording."""

from pathlib import Path

import pytest

from vermilion import load
from vermilion.audio import load_audio
from vermilion.checkpoints import catalogue
from vermilion.errors import CheckpointError
from vermilion.loading import load_detector, load_event_detector, load_stream_detector

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def opening():
    """Eight seconds of the example: a woman speaks English from 1.6 s to 7 s."""
    return load_audio(ROOT / "examples" / "tour.ogg")[: 8 * 16000]


def test_the_whole_set_answers(opening):
    pipeline = load("mini")
    assert set(pipeline.models()) >= {"vad", "events", "lid", "asr", "punc"}
    found = pipeline.transcribe((opening, 16000))
    assert found.failures == []
    assert found.segments
    assert found.words


def test_the_detectors_find_the_speech(opening):
    segments = load_detector("mini").detect(opening).segments
    assert sum(s.duration for s in segments) > 3.0
    assert all(s.end > 1.0 for s in segments)
    assert load_event_detector("mini").detect(opening).probabilities.shape[1] == 3
    frames = load_stream_detector("mini").accept(opening)
    assert sum(frame.is_speech for frame in frames) > 200


def test_where_the_set_is_missing_the_error_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(catalogue.MINI_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="recipes/mini/models"):
        load("mini")
