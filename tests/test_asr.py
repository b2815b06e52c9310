"""Recognition: alignment, times, words, defects put right, batch mates."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import AED_TOKENS, noise, write_aed

from vermilion.asr import AedRecognizer, DecodingOptions, forced_align
from vermilion.asr.alignment import even_times, raw_times, shifted_times
from vermilion.asr.words import text_of, words_of
from vermilion.errors import AudioError, CheckpointError, ModelError, OptionsError
from vermilion.transcript import Failure, Recognition, Token


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return AedRecognizer.from_pretrained(write_aed(tmp_path_factory.mktemp("aed")))


def posteriors(frames, size, seed):
    logits = torch.randn(frames, size, generator=torch.Generator().manual_seed(seed))
    return logits.log_softmax(-1).numpy()


def collapse(path):
    return [k for k, _ in itertools.groupby(path) if k]


@given(st.integers(1, 40), st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 1000))
def test_alignment_spells_the_labels(frames, ids, seed):
    path = forced_align(posteriors(frames, 6, seed), ids)
    if frames < len(ids) + sum(a == b for a, b in itertools.pairwise(ids)):
        assert path is None
    else:
        assert len(path) == frames
        assert collapse(path.tolist()) == ids


@given(st.integers(1, 6), st.lists(st.integers(1, 2), min_size=1, max_size=3), st.integers(0, 200))
def test_alignment_is_the_best_of_all_paths(frames, ids, seed):
    scores = posteriors(frames, 3, seed)
    path = forced_align(scores, ids)
    every = [p for p in itertools.product(range(3), repeat=frames) if collapse(p) == ids]
    if path is None:
        assert not every
        return
    value = lambda p: sum(scores[t, k] for t, k in enumerate(p))  # noqa: E731
    assert value(path) == pytest.approx(max(map(value, every)), abs=1e-4)


@given(st.integers(1, 60), st.lists(st.integers(1, 5), min_size=1, max_size=15), st.integers(0, 1000))
def test_token_times_are_monotone_and_inside(frames, ids, seed):
    path = forced_align(posteriors(frames, 6, seed), ids)
    duration = round(frames * 0.04 + 0.01, 3)
    times = even_times(len(ids), duration) if path is None else shifted_times(*raw_times(path), duration)
    starts, ends = times
    assert len(starts) == len(ends) == len(ids)
    assert all(a <= b for a, b in itertools.pairwise(starts))
    assert all(0 <= a <= duration for a in starts + ends)
    assert all(round(x, 3) == x for x in starts + ends)


def test_a_word_after_a_pause_keeps_its_start():
    path = [1] * 2 + [0] * 60 + [2, 0, 3, 0, 1, 0, 2, 0, 3]
    starts, ends = shifted_times(*raw_times(path), 3.0)
    assert ends[0] < 1.5
    assert starts[1] == pytest.approx(0.04 * 63 - 0.06, abs=1e-3)


def tokens(*texts):
    return [Token(9, t, 0.5, i * 0.1, i * 0.1 + 0.1) for i, t in enumerate(texts)]


def test_words_follow_the_marks():
    found = words_of(tokens("▁HELLO", "S", "你", "S", "▁", "好", "▁A", "<sil>", "B"))
    assert [w.text for w in found] == ["hellos", "你", "s", "好", "a", "b"]
    assert (found[0].start, found[0].end) == (0.0, 0.2)
    assert text_of(["打", "开", "▁BLUE", "TOOTH", "<sil>", "设", "<unk>"]) == "打开 bluetooth设<unk>"


def test_one_result_per_recording_and_bad_ones_cost_nobody(recognizer, tmp_path):
    (tmp_path / "no.wav").write_bytes(b"not audio at all")
    sources = [
        (noise(1.2), 16000),
        tmp_path / "missing.wav",
        (noise(0.02), 16000),
        tmp_path / "no.wav",
        (noise(2), 8000),
    ]
    results = recognizer.recognize(sources)
    kinds = [type(r) for r in results]
    assert kinds == [Recognition, Failure, Recognition, Failure, Recognition]
    assert isinstance(results[1].error, AudioError)
    assert (results[2].text, results[2].confidence, results[2].words) == ("", 0.0, [])
    assert recognizer.recognize([]) == []


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(0.05, 3.0), min_size=2, max_size=5), st.integers(0, 50))
def test_batch_mates_change_no_result(recognizer, seconds, seed):
    sources = [(noise(s, seed + i), 16000) for i, s in enumerate(seconds)]
    together = recognizer.recognize(sources, DecodingOptions(nbest=2))
    for source, got in zip(sources, together, strict=True):
        alone = recognizer.recognize([source], DecodingOptions(nbest=2))[0]
        assert alone.text == got.text
        assert [h.text for h in alone.alternatives] == [h.text for h in got.alternatives]
        assert alone.confidence == pytest.approx(got.confidence, abs=1e-4)
        assert [(w.text, w.start, w.end) for w in alone.words] == [(w.text, w.start, w.end) for w in got.words]


def test_results_are_complete(recognizer):
    result = recognizer.recognize([(noise(2.0), 16000)], DecodingOptions(nbest=3))[0]
    assert len(result.alternatives) == 3
    assert result.alternatives[0].text == result.text
    assert result.model == "FireRedASR2-AED"
    for token in result.tokens:
        assert token.text not in ("<blank>", "<pad>", "<sos>", "<eos>", "<sil>")
        assert 0 <= token.probability <= 1
        assert 0 <= token.start <= token.end <= 2.0
    assert recognizer.recognize([(noise(2.0), 16000)], DecodingOptions(timestamps=False))[0].words == []


def test_long_audio_is_cut_and_joined_not_lost(recognizer):
    samples = noise(7.0)
    result = recognizer.recognize([(samples, 16000)], DecodingOptions(max_segment_seconds=3.0))[0]
    assert isinstance(result, Recognition)
    assert max(w.start for w in result.words) > 4.0
    assert all(a.start <= b.start for a, b in itertools.pairwise(result.words))


def test_a_network_that_fails_is_reported_in_place(recognizer, monkeypatch):
    encode = recognizer.front.encode

    def fragile(batch):
        if any(len(u.samples) == 16000 for u in batch):
            raise RuntimeError("out of memory")
        return encode(batch)

    monkeypatch.setattr(recognizer.front, "encode", fragile)
    results = recognizer.recognize([(noise(1.5), 16000), (noise(1.0), 16000), (noise(0.7), 16000)])
    assert [type(r) for r in results] == [Recognition, Failure, Recognition]
    assert isinstance(results[1].error, ModelError)


def test_options_are_checked(recognizer):
    for bad in ({"nbest": 4}, {"beam_size": 0}, {"eos_penalty": 0.0}, {"softmax_smoothing": 0}):
        with pytest.raises(ValueError, match=r"\d"):
            DecodingOptions(**bad)
    with pytest.raises(OptionsError, match="language model"):
        recognizer.recognize([(noise(1), 16000)], DecodingOptions(lm_weight=0.5))


def test_alignment_of_a_given_text_keeps_its_spelling(recognizer):
    words = recognizer.align((noise(2.0), 16000), "你好，世界！")
    assert [w.text for w in words] == ["你", "好，", "世", "界！"]
    assert all(a.start <= b.start for a, b in itertools.pairwise(words))
    with pytest.raises(AudioError, match="too short"):
        recognizer.align((noise(0.1), 16000), "你好世界" * 5)
    with pytest.raises(OptionsError):
        recognizer.align((noise(1.0), 16000), "。。")


def test_without_a_ctc_head_tokens_are_spread(tmp_path):
    plain = AedRecognizer.from_pretrained(write_aed(tmp_path, ctc=False))
    result = plain.recognize([(noise(1.0), 16000)])[0]
    assert result.words == [] or result.words[-1].end <= 1.0
    with pytest.raises(OptionsError, match="CTC"):
        plain.align((noise(1.0), 16000), "你")


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        AedRecognizer.from_pretrained(tmp_path / "none")
    folder = write_aed(tmp_path / "aed")
    (folder / "dict.txt").write_text("\n".join(AED_TOKENS[:-1]), encoding="utf8")
    with pytest.raises(CheckpointError, match="14 entries, the model 15"):
        AedRecognizer.from_pretrained(folder)
    with pytest.raises(OptionsError, match="precision"):
        AedRecognizer.from_pretrained(write_aed(tmp_path / "b"), precision="int3")


def test_half_precision_runs(tmp_path):
    half = AedRecognizer.from_pretrained(write_aed(tmp_path), precision="bfloat16")
    assert np.isfinite(half.recognize([(noise(1.0), 16000)])[0].confidence)
