"""Calibration: the fit, the file, and its use by the loader."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import noise, write_aed

from vermilion.asr.calibration import (
    FILE,
    CalibratedRecognizer,
    Calibration,
    ConfidenceCurve,
    read_calibration,
    write_calibration,
)
from vermilion.decoding.options import DecodingOptions
from vermilion.errors import CheckpointError, OptionsError
from vermilion.evaluation.calibration import (
    Samples,
    calibrate,
    fit,
    reliability,
    utterance_sample,
    word_samples,
)
from vermilion.loading import load_recognizer
from vermilion.pipeline import PipelineOptions
from vermilion.testing import FakeRecognizer
from vermilion.transcript import Hypothesis, Recognition, Word


def overconfident(n=3000, temperature=2.5, seed=0):
    """Answers whose true probability is sigmoid(logit / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(1.5, 3, n)
    right = rng.random(n) < 1 / (1 + np.exp(-logits / temperature))
    sure = 1 / (1 + np.exp(-logits))
    return Samples(tuple(sure), tuple(right.astype(float)), tuple(str(i // 10) for i in range(n)))


def test_calibration_error_by_hand():
    got = reliability([0.95, 0.85, 0.9, 0.1], [1, 0, 1, 0])
    assert got.counts == (0, 1, 0, 0, 0, 0, 0, 0, 1, 2)
    assert got.ece == pytest.approx((0.1 + 0.85 + 2 * abs(0.925 - 1)) / 4)
    assert got.brier == pytest.approx((0.05**2 + 0.85**2 + 0.1**2 + 0.1**2) / 4)
    assert reliability([], []).ece == 0.0
    assert reliability([1.0], [1.0]).counts[-1] == 1
    with pytest.raises(OptionsError):
        reliability([0.5], [])


def test_the_temperature_is_found():
    got = fit(overconfident(), "temperature")
    assert got.curve.temperature == pytest.approx(2.5, rel=0.1)
    assert got.before.ece > 0.1
    assert got.after.ece < 0.03


def test_an_isotonic_curve_follows_any_shape():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 4000)
    right = (rng.random(4000) < (sure - 0.5) ** 2 * 2).astype(float)
    samples = Samples(tuple(sure), tuple(right), tuple(map(str, range(4000))))
    got = fit(samples)
    assert got.curve.method == "isotonic"
    assert got.after.ece < 0.03 < got.before.ece
    assert got.curve(0.9) == pytest.approx(0.32, abs=0.06)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20, unique=True), st.floats(0, 1))
def test_curves_never_fall_and_stay_in_range(values, value):
    x = tuple(sorted(values))
    curve = ConfidenceCurve("isotonic", x=x, y=x)
    assert curve(value) == pytest.approx(min(max(value, x[0]), x[-1]))
    warm = ConfidenceCurve("temperature", 3.0)
    assert 0 <= warm(value) <= 1
    assert warm(min(values)) <= warm(max(values))
    assert ConfidenceCurve("temperature", 1.0)(value) == pytest.approx(value, abs=2e-6)


def test_few_recordings_and_all_right():
    few = Samples((0.9,) * 19, (1.0,) * 19, tuple(map(str, range(19))))
    with pytest.raises(OptionsError, match="19 recordings"):
        fit(few)
    many = Samples((0.9,) * 40, (1.0,) * 40, tuple(map(str, range(40))))
    got = fit(many, "temperature")
    assert got.curve(0.9) > 0.99


def test_what_is_right_of_a_recognition():
    words = [Word("hello", 0, 1, 0.9), Word("big", 1, 2, 0.6), Word("…", 2, 3, 0.5), Word("word", 3, 4, 0.4)]
    heard = Recognition("hello big word", 0.8, words=words)
    got = word_samples("a", heard, "Hello, world!")
    assert got.confidences == (0.9, 0.6, 0.4)
    assert got.correct[0] == 1.0
    assert sum(got.correct) == 1.0
    assert utterance_sample("a", heard, "Hello, world!") == Samples((0.8,), (pytest.approx(1 / 3),), ("a",))
    assert len(utterance_sample("a", Recognition("", 0.0), "x")) == 0


def test_a_file_goes_round_and_is_checked(tmp_path):
    utterances = overconfident(400)
    made, fits = calibrate(utterances, overconfident(400, seed=1), model="tiny")
    assert set(fits) == {"utterance", "word"}
    write_calibration(tmp_path, made)
    assert read_calibration(tmp_path) == read_calibration(tmp_path / FILE)
    back = read_calibration(tmp_path)
    assert (back.utterance, back.word, back.model) == (made.utterance, made.word, "tiny")
    assert read_calibration(tmp_path / "elsewhere.json") is None


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"vermilion_calibration": 2}',
        '{"vermilion_calibration": 1, "word": {"method": "temperature", "temperature": 0}}',
        '{"vermilion_calibration": 1, "word": {"method": "temperature", "temperature": "NaN"}}',
        '{"vermilion_calibration": 1, "word": {"method": "isotonic", "x": [0.1, 0.2], "y": [0.9, 0.1]}}',
        '{"vermilion_calibration": 1, "word": {"method": "isotonic", "x": [], "y": []}}',
        '{"vermilion_calibration": 1, "word": {"method": "eval", "x": [0.1], "y": [0.1]}}',
        '{"vermilion_calibration": 1, "utterance": 3}',
    ],
)
def test_a_damaged_file_says_what_to_do(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match="vermilion calibrate"):
        read_calibration(tmp_path)


def test_a_calibrated_recogniser_is_the_one_inside():
    cold = Calibration(ConfidenceCurve("temperature", 2.0), ConfidenceCurve("isotonic", x=(0.0, 1.0), y=(0.0, 0.5)))
    both = CalibratedRecognizer(FakeRecognizer(languages=frozenset({"en"})), cold)
    assert (both.name, both.languages, both.punctuates) == ("fake-asr", frozenset({"en"}), False)
    assert not hasattr(both, "aligner")
    heard = both.recognize([np.zeros(16000, np.float32)], DecodingOptions(timestamps=True))[0]
    assert heard.text == "heard 1.00"
    assert heard.confidence == pytest.approx(2 / 3)  # sigmoid(logit(0.8) / 2)
    assert [w.confidence for w in heard.words] == pytest.approx([0.4, 0.4])
    silent = Recognition("", 0.0, alternatives=[Hypothesis("", 0.0)])
    assert cold.apply(silent) is silent


def test_the_loader_uses_the_file_beside_the_model(tmp_path):
    folder = write_aed(tmp_path / "FireRedASR2-AED")
    audio = [noise(1.5)]
    plain = load_recognizer(tmp_path).recognize(audio, DecodingOptions(timestamps=True))[0]
    half = {"method": "isotonic", "x": [0.0, 1.0], "y": [0.0, 0.5]}
    (folder / FILE).write_text(json.dumps({"vermilion_calibration": 1, "utterance": half, "word": half}))
    heard = load_recognizer(tmp_path).recognize(audio, DecodingOptions(timestamps=True))[0]
    assert heard.text == plain.text != ""
    assert heard.confidence == pytest.approx(plain.confidence / 2)
    assert heard.alternatives[0].confidence == pytest.approx(heard.confidence)
    assert [w.confidence for w in heard.words] == pytest.approx([w.confidence / 2 for w in plain.words])
    assert heard.tokens == plain.tokens
    off = load_recognizer(tmp_path, options=PipelineOptions(calibration=False))
    assert off.recognize(audio, DecodingOptions(timestamps=True))[0] == plain
