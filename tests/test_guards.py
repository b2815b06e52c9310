"""Runaway text is cut, honest repetition stays, text is held against what the CTC head hears."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny import noise, write_aed

from vermilion.asr import AedRecognizer, DecodingOptions
from vermilion.asr.coverage import coverage
from vermilion.asr.guarding import AedGuard, Evidence
from vermilion.asr.long_form import joined
from vermilion.asr.whisper import WhisperRecognizer
from vermilion.decoding.beam import BeamHypothesis
from vermilion.decoding.guards import (
    Repetition,
    repetitions,
    supported_times,
    text_without_loops,
    token_ceiling,
    within_rate,
    without_loops,
)
from vermilion.flags import LOW_COVERAGE, MEANINGS, RATE_LIMITED, REPETITION, RETRIED
from vermilion.transcript import Recognition

VOCABULARY = ["<blank>", "<unk>", "<pad>", "<sos>", "<eos>", "<sil>", *"abcdefghijkl"]
GUARD = AedGuard(VOCABULARY, {0, 2, 3, 4, 5})


def posterior(labels, each=4, chance=0.9):
    """CTC log-probabilities: every label for one frame, blanks between; 0 = blank."""
    size = len(VOCABULARY)
    frames = np.full((len(labels) * each, size), (1 - chance) / (size - 1))
    for i, label in enumerate(labels):
        frames[i * each : (i + 1) * each, 0] = chance
        if label:
            frames[i * each] = (1 - chance) / (size - 1)
            frames[i * each, label] = chance
    return np.log(frames / frames.sum(1, keepdims=True)).astype(np.float32)


def text(*ids, finished=True):
    return BeamHypothesis(list(ids), [0.9] * len(ids), -1.0, finished)


def judged(hypothesis, heard, rescored=None, seconds=None):
    log_probs = posterior(heard)
    evidence = Evidence.of(len(log_probs) * 0.04 if seconds is None else seconds, log_probs, {2, 3, 4})
    found = GUARD(hypothesis, evidence, (lambda: rescored) if rescored is not None else None)
    return found.hypothesis.ids, found.flags


def test_every_flag_has_a_meaning():
    assert {RATE_LIMITED, REPETITION, RETRIED, LOW_COVERAGE} <= MEANINGS.keys()
    assert all(meaning and meaning[0].islower() for meaning in MEANINGS.values())


# ---- rate


@pytest.mark.parametrize(
    ("tokens", "seconds", "fits"),
    [
        (["你"] * 90, 10.0, True),  # nine characters a second: nobody speaks faster for long
        (["你"] * 8, 0.3, True),  # short utterances are cut close
        (["▁A", "B"] * 60, 10.0, True),  # six words a second
        (["你"] * 250, 10.0, False),
        (["▁A"] * 300, 10.0, False),
    ],
)
def test_ceilings_lie_above_real_speech(tokens, seconds, fits):
    kept = within_rate(tokens, seconds)
    assert (kept == len(tokens)) is fits
    assert kept <= token_ceiling(seconds)


def test_the_ceiling_grows_with_the_audio():
    assert token_ceiling(0.0) >= 4
    assert token_ceiling(10.0) - token_ceiling(0.0) == 160


# ---- loops


def test_loops_are_found_by_their_smallest_unit():
    assert repetitions([1, 2, 3, *[7] * 9, 4]) == [Repetition(3, 1, 9)]
    assert repetitions([6, 7] * 10) == [Repetition(0, 2, 10)]
    assert repetitions([8, 8, 8, 8, 9]) == [], "no no no no"
    assert repetitions([6, 7, 6, 7, 6, 7]) == []
    assert repetitions([*[6] * 12, 1, *[9, 8, 7] * 4]) == [Repetition(0, 1, 12), Repetition(13, 3, 4)]


def test_repeats_that_were_heard_stay():
    ids = [6, 7] * 12
    assert without_loops(ids, ids, 5) == list(range(24))
    assert supported_times(Repetition(0, 2, 12), ids, [6, 7] * 11) == 11
    assert without_loops(ids, [6, 7] * 11, 5) == list(range(24)), "the head may miss one"


def test_repeats_that_were_not_heard_are_cut():
    ids = [9, *[6, 7] * 20, 10]
    assert [ids[i] for i in without_loops(ids, [9, 6, 7, 6, 7, 10], 99)] == [9, 6, 7, 6, 7, 10]
    assert [ids[i] for i in without_loops(ids, [], 99)] == [9, 6, 7, 10]


def test_without_a_ctc_head_time_judges():
    ids = [6, 7] * 12
    assert without_loops(ids, None, 30) == list(range(24))
    assert without_loops(ids, None, 20) == [0, 1]


def test_texts_without_tokens_are_cut_by_time():
    assert text_without_loops("你好" * 40, 5.0) == "你好"
    assert text_without_loops("well, " + "yes it is " * 60 + "bye", 9.0) == "well, yes it is bye"
    honest = "hello world " * 12
    assert text_without_loops(honest.strip(), 17.0) == honest.strip()


# ---- coverage


def test_a_healthy_text_is_left_alone():
    heard = [6, 7, 0, 8, 9, 10, 0, 11, 6]
    ids = [i for i in heard if i]
    assert judged(text(*ids), heard, text(12)) == (ids, [])
    assert coverage(posterior(heard), ids).is_healthy


def test_small_disagreements_are_none():
    heard = [6, 7, 0, 8, 9, 10, 0, 11, 6]
    assert judged(text(6, 7, 12, 9, 10, 11, 6), heard, text(12)) == ([6, 7, 12, 9, 10, 11, 6], [])
    assert judged(text(6, 7, 9, 11, 6), heard, text(12)) == ([6, 7, 9, 11, 6], [])


def test_a_lost_half_is_decoded_again():
    heard = [6, 7, 8, 0, 0, 0, 9, 10, 11, 12, 13, 14]
    whole = [i for i in heard if i]
    assert judged(text(6, 7, 8), heard, text(*whole)) == (whole, [RETRIED])
    assert judged(text(6, 7, 8), heard, text(6, 7)) == ([6, 7, 8], [LOW_COVERAGE])
    assert judged(text(6, 7, 8), heard) == ([6, 7, 8], [LOW_COVERAGE])
    assert judged(text(), heard, text(*whole)) == (whole, [RETRIED])


def test_an_invention_gives_way_to_what_was_heard():
    silence = [0] * 12
    assert judged(text(6, 7, 8, 9, 10), silence, text()) == ([], [RETRIED])
    assert judged(text(6, 7, 8, 9, 10), [11, 0, 0, 12, *silence], text(11, 12)) == ([11, 12], [RETRIED])
    assert judged(text(6, 7, 8, 9, 10), silence, text(6, 7, 8, 9, 11)) == ([6, 7, 8, 9, 10], [LOW_COVERAGE])


def test_where_decoder_and_head_both_shake_their_heads_there_is_no_text():
    unlikely = BeamHypothesis([11], [1e-3], -7.0, True)
    assert judged(text(6, 7, 8, 9, 10), [11, 0, *[0] * 11], unlikely) == ([], [RETRIED])


def test_short_texts_that_nobody_hears_are_inventions():
    assert judged(text(6), [0] * 12, text()) == ([], [RETRIED])


def test_silence_marks_are_not_speech():
    assert judged(text(6), [5, 5, 0, 5, 0, 5, 0, 5, 0, 5, 6], text()) == ([6], [])


def test_a_loop_is_cut_and_what_it_hid_is_found():
    heard = [6, 7, 8, 9, 10, 11, 12, 13]
    ids, flags = judged(text(6, 7, *[8] * 30, finished=False), heard, text(*heard))
    assert (ids, flags) == (heard, [RETRIED])
    ids, flags = judged(text(*heard, *[8] * 12), heard)
    assert (ids, flags) == ([*heard, 8], [REPETITION])


def test_a_text_that_ran_into_the_ceiling_is_flagged():
    log_probs = posterior([6])
    runaway = text(*np.random.default_rng(3).integers(6, 17, 300).tolist(), finished=False)
    found = GUARD(runaway, Evidence(2.0, log_probs, [6]), lambda: text(6))
    assert (found.hypothesis.ids, found.flags) == ([6], [RETRIED])
    found = GUARD(runaway, Evidence(2.0, None, None), None)
    assert RATE_LIMITED in found.flags
    assert len(found.hypothesis.ids) <= token_ceiling(2.0)
    assert len(found.hypothesis.ids) == len(found.hypothesis.probabilities)


# ---- in the recogniser


@pytest.mark.parametrize("search", ["beam", "greedy", "rescore", "ctc"])
@pytest.mark.parametrize("ctc", [True, False])
def test_random_networks_never_run_away(tmp_path, search, ctc):
    if search in ("rescore", "ctc") and not ctc:
        pytest.skip("these searches need the head")
    recogniser = AedRecognizer.from_pretrained(write_aed(tmp_path, ctc=ctc))
    clips = [noise(s, seed) for seed, s in enumerate((0.3, 1.0, 4.0))]
    for clip, result in zip(clips, recogniser.recognize(clips, DecodingOptions(search=search)), strict=True):
        ceiling = token_ceiling(len(clip) / 16000)
        assert len(result.tokens) <= ceiling
        assert not [r for r in repetitions([t.id for t in result.tokens]) if r.size * r.times > ceiling / 2]
        assert set(result.flags) <= {RATE_LIMITED, REPETITION, RETRIED, LOW_COVERAGE}
        assert result.alternatives[0].text == result.text
        assert len(result.words) == 0 or result.words[-1].end <= len(clip) / 16000 + 1e-6
    for one, clip in zip(recogniser.recognize(clips, DecodingOptions(search=search)), clips, strict=True):
        assert one.text == recogniser.recognize([clip], DecodingOptions(search=search))[0].text, "mates change nothing"


def test_switched_off_the_search_is_the_published_one(tmp_path):
    recogniser = AedRecognizer.from_pretrained(write_aed(tmp_path))
    (off,) = recogniser.recognize([noise(4.0)], DecodingOptions(guards=False))
    assert len(off.tokens) > token_ceiling(4.0)
    assert off.flags == []


def test_flags_of_pieces_are_united():
    parts = [(0.0, Recognition("a", 0.5, flags=["retried"])), (5.0, Recognition("b", 0.5, flags=["retried", "x"]))]
    assert joined(parts).flags == ["retried", "x"]


# ---- Whisper


def segment(words, ratio=6.0):
    timed = [SimpleNamespace(word=f" {w}", start=a, end=b, probability=0.8) for w, a, b in words]
    spoken = " ".join(w for w, _, _ in words)
    return SimpleNamespace(
        text=spoken, words=timed, avg_logprob=-0.5, compression_ratio=ratio, tokens=[1], no_speech_prob=0.1
    )


class Scripted:
    def __init__(self, *answers):
        self.answers, self.calls = list(answers), []

    def transcribe(self, samples, **options):
        self.calls.append(options)
        return iter([self.answers.pop(0)] if self.answers else []), None


def whisper(seconds, *answers):
    model = Scripted(*answers)
    (result,) = WhisperRecognizer(model).recognize([noise(seconds)], languages=["en"])
    return result, model


def spread(word, count, seconds):
    step = seconds / count
    return [(word, i * step, (i + 0.8) * step) for i in range(count)]


def test_words_repeated_at_the_pace_of_speech_stay():
    result, model = whisper(12.0, segment(spread("hello", 24, 12.0)))
    assert result.text.split() == ["hello"] * 24
    assert result.flags == []
    assert len(model.calls) == 1


def test_a_loop_whose_times_pile_up_is_tried_again():
    loop = segment([("so", 0.1 + 0.01 * i, 0.11 + 0.01 * i) for i in range(50)])
    result, model = whisper(12.0, loop, segment([("so", 0.1, 0.4), ("it", 5.0, 5.2), ("is", 11.0, 11.5)], ratio=1.0))
    assert (result.text, result.flags) == ("so it is", [RETRIED])
    assert model.calls[1]["no_repeat_ngram_size"] == 3
    loop = segment([("so", 0.1 + 0.01 * i, 0.11 + 0.01 * i) for i in range(50)])
    result, _ = whisper(12.0, loop, segment([("so", 0.1, 0.4)], ratio=1.0))
    assert (result.text, result.flags) == ("so", [RETRIED, LOW_COVERAGE])


def test_where_both_tries_repeat_only_what_can_be_said_stays():
    crowded = [("so", 5.0, 5.001)] * 200
    result, _ = whisper(6.0, segment(crowded), segment(crowded))
    assert (result.text, result.flags) == ("", [REPETITION])
    late = [("seven", 8.0 + 0.4 * i, 8.3 + 0.4 * i) for i in range(10)]
    result, _ = whisper(12.0, segment(late), segment(late))
    assert (result.text.split(), result.flags) == (["seven"] * 10, [REPETITION])
