"""Segments that hold no speech: the rules, what the pipeline makes of them, and the starter set on made sounds."""

from dataclasses import replace

import numpy as np
import pytest

from vermilion.errors import OptionsError
from vermilion.formats import SubtitleOptions
from vermilion.formats.subtitle_files import render_ass, render_srt, render_vtt
from vermilion.formats.subtitles import cues
from vermilion.nonspeech import Shares, SoundPolicy, log_probability, shares_of
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.testing import FakeDetector, FakeEventDetector, FakeIdentifier, FakeRecognizer
from vermilion.transcript import Event, EventResult, Recognition, Sentence, Span, Token, Transcript, Word

RATE = 16000
SPEECH, MUSIC, SONG = Shares(0.98, 0.0, 0.1), Shares(0.02, 0.1, 1.0), Shares(0.1, 0.8, 0.9)
OVER_MUSIC, EFFECT = Shares(0.95, 0.0, 1.0), Shares(0.4, 0.0, 0.0)


def heard(likelihood, silence, text="you"):
    return Recognition(text, 0.5, log_probability=likelihood, no_speech=silence)


def tone(seconds):
    return (0.3 * np.sin(np.arange(int(seconds * RATE)) * 0.2)).astype(np.float32), RATE


class Doubter(FakeRecognizer):
    """Is sure of segments of 2 s and invents text for all others."""

    def _one(self, samples, options):
        sure = len(samples) == 2 * RATE
        text = "words here" if sure else "you"
        words = [Word(text, 0.0, len(samples) / RATE, 0.9)]
        return Recognition(text, 0.9, words=words, log_probability=-0.2 if sure else -1.5, no_speech=0.7)


def events(**spans):
    found = {label: [Span(*s) for s in spans.get(label, [])] for label in ("speech", "singing", "music")}
    return FakeEventDetector(found)


def run(event_detector, recognizer=None, spans=((0, 2), (3, 6)), seconds=8, **options):
    recognizer = recognizer or Doubter()
    pipeline = Pipeline(
        FakeDetector([Span(*s) for s in spans]),
        FakeIdentifier(),
        recognizer,
        None,
        PipelineOptions(**options),
        event_detector=event_detector,
    )
    return pipeline.transcribe(tone(seconds))


def test_shares_are_those_of_the_segment():
    spans = {"speech": [Span(0, 1), Span(1.5, 4)], "singing": [], "music": [Span(3, 9)]}
    shares = shares_of(EventResult(spans, {}, np.zeros((0, 3), np.float32), 9.0), Span(0.5, 4.5))
    assert shares == Shares(pytest.approx(0.75), 0.0, pytest.approx(0.375))


@pytest.mark.parametrize("shares", [MUSIC, SONG, EFFECT, SPEECH, None])
def test_text_that_the_recogniser_takes_for_silence_is_doubted_whatever_plays(shares):
    assert SoundPolicy().doubted(heard(-1.6, 0.75), shares)
    assert not SoundPolicy().doubted(heard(-0.3, 0.05), shares)
    assert not SoundPolicy().doubted(Recognition("", 0.0, log_probability=-2, no_speech=0.9), shares)


def test_one_witness_is_not_enough():
    policy = SoundPolicy()
    assert not policy.doubted(heard(-1.3, 0.05), MUSIC)  # a badly known language under music
    assert not policy.doubted(heard(-0.3, 0.9), MUSIC)
    assert not policy.doubted(heard(-1.2, 0.2), SPEECH)
    assert policy.doubted(heard(-1.2, 0.2), EFFECT)


def test_a_recogniser_that_tells_no_silence_is_doubted_only_where_no_speech_is_heard():
    tokens = [Token(1, "a", 0.1), Token(2, "b", 0.3)]
    found = Recognition("ab", 0.2, tokens=tokens)
    assert log_probability(found) == pytest.approx((np.log(0.1) + np.log(0.3)) / 2)
    assert SoundPolicy().doubted(found, MUSIC)
    assert not SoundPolicy().doubted(found, SPEECH)
    sure = replace(found, tokens=[replace(t, probability=0.7) for t in tokens])
    assert not SoundPolicy().doubted(sure, MUSIC), "speech under loud music that the detector overlooks"
    unheard, heard_well = replace(found, no_speech=0.9), replace(found, no_speech=0.1)  # what a CTC head says
    assert SoundPolicy().doubted(unheard, SPEECH)
    assert not SoundPolicy().doubted(heard_well, SPEECH)
    assert not SoundPolicy().doubted(found, None)
    assert not SoundPolicy().doubted(Recognition("ab", 0.0), MUSIC)  # tells nothing of its certainty


@pytest.mark.parametrize(
    ("option", "shares"), [("on_music", MUSIC), ("on_singing", SONG), ("on_noise", EFFECT), ("on_noise", None)]
)
def test_keep_keeps_its_own_kind_of_sound_only(option, shares):
    kept = SoundPolicy(**{option: "keep"})
    assert not kept.doubted(heard(-1.6, 0.75), shares)
    assert [kept.doubted(heard(-1.6, 0.75), s) for s in (MUSIC, SONG, EFFECT)].count(False) == 1


def test_music_and_singing_are_marked_or_refused():
    assert SoundPolicy().marks(OVER_MUSIC) == ["music"]
    assert SoundPolicy().marks(SONG) == ["music", "singing"]
    assert SoundPolicy().marks(SPEECH) == SoundPolicy().marks(None) == SoundPolicy(on_music="keep").marks(MUSIC) == []
    assert SoundPolicy(on_music="drop").refused(MUSIC) == ["no-speech", "music"]
    assert SoundPolicy(on_singing="drop").refused(SONG) == ["no-speech", "singing"]
    strict = SoundPolicy("drop", "drop")
    assert strict.refused(OVER_MUSIC) == strict.refused(SPEECH) == strict.refused(EFFECT) == strict.refused(None) == []


def test_invented_text_is_dropped_flagged_and_told():
    t = run(events(speech=[(0, 2)], music=[(3, 6)]))
    assert t.text == "words here"
    assert t.sentences[0].flags == []
    assert t.flags == ["music", "no-speech"]
    assert t.segments == [Span(0, 2), Span(3, 6)]  # what was found stays to be seen
    assert [(x.start, x.end) for x in t.languages] == [(0, 2)]
    (warning,) = [w for w in t.warnings if "nobody" in w]
    assert "3.0 s" in warning
    assert "music 3.0 s" in warning


def test_text_over_music_stays_with_a_flag():
    t = run(events(speech=[(0, 2)], music=[(0, 2)]), spans=[(0, 2)])
    assert (t.text, t.sentences[0].flags, t.flags) == ("words here", ["music"], ["music"])
    assert not any("nobody" in w for w in t.warnings)


def test_dropped_kinds_are_not_recognised():
    recognizer = Doubter()
    t = run(events(singing=[(0, 2)], music=[(3, 6)]), recognizer, on_singing="drop")
    assert t.text == ""
    assert sum(recognizer.batches) == 1
    assert t.flags == ["music", "no-speech", "singing"]
    assert any("music 3.0 s, singing 2.0 s" in w for w in t.warnings)


def test_kept_kinds_keep_whatever_was_heard():
    t = run(events(music=[(0, 8)]), on_music="keep")
    assert (t.text, t.flags) == ("words here you", [])


def test_without_events_the_recognisers_own_doubt_decides():
    assert run(None).text == "words here"
    assert run(None, on_noise="keep").text == "words here you"


@pytest.mark.parametrize(("name", "value"), [("on_music", "mute"), ("on_singing", True), ("on_noise", "mark")])
def test_other_choices_are_refused(name, value):
    with pytest.raises(OptionsError, match=name):
        PipelineOptions(**{name: value})


# ---- subtitles


def song():
    return Transcript(
        "a",
        40.0,
        sentences=[
            Sentence("Good evening.", 5.0, 6.5),
            Sentence("la la la", 20.0, 22.0, flags=["singing"]),
        ],
        events=[
            Event("music", 0.0, 4.6),
            Event("music", 5.0, 12.0),
            Event("singing", 19.5, 30.0),
            Event("music", 18.0, 40.0),
            Event("speech", 5.0, 6.5),
        ],
    )


def test_sounds_are_told_only_when_asked_for():
    assert [c.lines for c in cues(song())] == [("Good evening.",), ("la la la",)]


def test_sounds_stand_between_the_words():
    found = cues(song(), SubtitleOptions(sound_marks=True))
    assert [(c.start_ms, c.end_ms, *c.lines) for c in found] == [
        (0, 5000, "[music]"),
        (5000, 6500, "Good evening."),
        (6500, 12000, "[music]"),
        (18000, 20000, "[music]"),
        (20000, 22000, "♪ la la la ♪"),
        (22000, 29000, "♪"),
        (30000, 37000, "[music]"),
    ]
    assert all(a.end_ms <= b.start_ms for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("render", [render_srt, render_vtt, render_ass])
def test_every_form_of_subtitles_shows_them(render):
    text = render(song(), SubtitleOptions(sound_marks=True))
    assert text.count("[music]") == 4
    assert "♪ la la la ♪" in text
    assert "♪" not in render(song())


def test_notes_stay_within_the_line_and_the_published_layout_has_them_too():
    sentence = Sentence("so long a song that it needs several lines and more than one cue to show it all", 0.0, 12.0)
    t = Transcript("a", 12.0, sentences=[sentence, Sentence("x", 13.0, 14.0, flags=["singing"])])
    sung = Transcript("a", 14.0, sentences=[Sentence(sentence.text, 0.0, 12.0, flags=["singing"]), t.sentences[1]])
    options = SubtitleOptions(sound_marks=True, max_line_width=24)
    lines = [line for cue in cues(sung, options) for line in cue.lines]
    assert all(len(line) <= 24 for line in lines)
    assert all(cue.lines[0].startswith("♪ ") and cue.lines[-1].endswith(" ♪") for cue in cues(sung, options))
    exact = cues(t, SubtitleOptions(sound_marks=True, layout="sentences"))
    assert [c.lines[0] for c in exact] == [sentence.text, "♪ x ♪"]


# ---- the starter set


@pytest.fixture(scope="module")
def starter():
    from vermilion import load
    from vermilion.loading import starter_installed

    if not starter_installed():
        pytest.skip("the starter set is not installed")
    return load("starter")


def chords(seconds):
    """A tune of chords of plucked strings."""
    t = np.arange(int(0.4 * RATE)) / RATE
    roots = [220, 262, 330, 196, 247, 294]
    notes = [
        sum(np.sin(2 * np.pi * root * r * k * t) / k for r in (1, 1.26, 1.5) for k in (1, 2, 3)) * np.exp(-4 * t)
        for root in roots
    ]
    tune = np.tile(np.concatenate(notes), 1 + int(seconds / 2.4))[: int(seconds * RATE)]
    return (0.2 * tune / np.abs(tune).max()).astype(np.float32)


def buzz(seconds):
    """A sawtooth whose loudness swells four times a second, which voice activity detection takes for speech."""
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.1 * (2 * (205 * t % 1) - 1) * (0.2 + np.sin(4 * np.pi * t) ** 2)).astype(np.float32)


def noise(seconds):
    rng = np.random.default_rng(3)
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.05 * rng.standard_normal(len(t)) * (0.1 + np.sin(2 * np.pi * 2 * t) ** 2)).astype(np.float32)


@pytest.mark.parametrize("make", [chords, buzz, noise])
def test_sounds_give_the_starter_set_no_words(starter, make):
    detected, starter.detector = starter.detector, None  # harder: all of it is taken for speech
    try:
        t = starter.transcribe((make(6), RATE))
    finally:
        starter.detector = detected
    assert t.text == ""
