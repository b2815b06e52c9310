"""The pipeline over test doubles: order, isolation of failures, routing, times, switches."""

import numpy as np
import pytest

from vermilion.errors import AudioError, ModelError, OptionsError
from vermilion.languages import WHISPER_CODES
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.testing import FakeDetector, FakeEventDetector, FakeIdentifier, FakeRecognizer, FakeRestorer
from vermilion.transcript import Failure, LanguageResult, Recognition, Span, Transcript, Word

RATE = 16000


def tone(seconds, level=0.3):
    return (level * np.sin(np.arange(int(seconds * RATE)) * 0.2)).astype(np.float32), RATE


def build(spans=None, **kwargs):
    parts = {
        "detector": FakeDetector(spans),
        "identifier": FakeIdentifier(),
        "recognizer": FakeRecognizer(),
        "restorer": FakeRestorer(),
    }
    parts.update(kwargs)
    return Pipeline(
        parts.pop("detector"),
        parts.pop("identifier"),
        parts.pop("recognizer"),
        parts.pop("restorer"),
        parts.pop("options", None),
        **parts,
    )


def test_segments_become_sentences_on_the_recordings_timeline():
    t = build([Span(0.5, 1.5), Span(2.0, 3.25)]).transcribe(tone(4))
    assert [s.text for s in t.sentences] == ["Heard 1.00.", "Heard 1.25."]
    assert [(s.start, s.end) for s in t.sentences] == [(0.5, 1.5), (2.0, 3.25)]
    assert t.text == "Heard 1.00. Heard 1.25."
    assert [(w.start, w.end) for w in t.words] == [(0.5, 1.0), (1.0, 1.5), (2.0, 2.625), (2.625, 3.25)]
    assert t.segments == [Span(0.5, 1.5), Span(2.0, 3.25)]
    assert t.duration == 4.0
    assert t.models == {"vad": "fake-vad", "lid": "fake-lid", "asr": "fake-asr", "punc": "fake-punc"}
    assert [(x.language, x.start, x.end) for x in t.languages] == [("en", 0.5, 3.25)]


def test_words_leave_pauses_unless_the_recognisers_times_are_wanted():
    samples, _ = tone(4)
    rng = np.random.default_rng(0)
    for start, end in ((0, 1.3), (1.7, 2.4), (2.8, 4)):  # sound from 1.3 to 1.7 s and from 2.4 to 2.8 s
        samples[round(start * RATE) : round(end * RATE)] = 1e-4 * rng.standard_normal(round((end - start) * RATE))
    spans = [Span(1.0, 3.0)]  # two words of a second each
    moved = build(spans).transcribe((samples, RATE)).words
    assert [(w.start, w.end) for w in moved] == [pytest.approx(x, abs=0.02) for x in ((1.3, 1.7), (2.4, 2.8))]
    kept = build(spans, options=PipelineOptions(word_edges="model")).transcribe((samples, RATE)).words
    assert [(w.start, w.end) for w in kept] == [(1.0, 2.0), (2.0, 3.0)]
    with pytest.raises(OptionsError, match="word_edges"):
        PipelineOptions(word_edges="centre")


def test_published_keys_are_a_subset_of_the_dict():
    d = build([Span(0.0, 1.0)]).transcribe(tone(2), utterance_id="u").to_dict()
    assert d["uttid"] == "u"
    assert d["vad_segments_ms"] == [[0, 1000]]
    assert list(d)[:7] == ["uttid", "text", "sentences", "vad_segments_ms", "dur_s", "words", "wav_path"]
    assert {"start_ms", "end_ms", "text", "asr_confidence", "lang", "lang_confidence"} <= set(d["sentences"][0])
    again = Transcript.from_dict(d)
    assert again.to_dict() == d


def test_many_recordings_come_back_in_order_and_a_bad_one_costs_nobody(tmp_path):
    missing = tmp_path / "missing.wav"
    sources = [tone(3), missing, tone(1), (np.zeros(0, np.float32), RATE), tone(2)]
    results = list(build(FakeDetector().spans).transcribe_many(sources))
    assert [type(r).__name__ for r in results] == ["Transcript", "Failure", "Transcript", "Transcript", "Transcript"]
    assert isinstance(results[1].error, AudioError)
    assert "missing.wav" in str(results[1])
    assert [r.duration for r in results if isinstance(r, Transcript)] == [3.0, 1.0, 0.0, 2.0]
    assert results[3].text == ""
    assert results[3].warnings


def test_transcribe_raises_the_typed_error_of_a_bad_recording(tmp_path):
    with pytest.raises(AudioError):
        build().transcribe(tmp_path / "nothing.wav")


class Fragile(FakeRecognizer):
    """Raises when a segment of one second is in the batch."""

    def recognize(self, recordings, options=None, /):
        if any(len(samples) == RATE for samples, _ in recordings):
            raise RuntimeError("out of memory")
        return super().recognize(recordings, options)


def test_a_failing_segment_is_reported_in_place_and_languages_do_not_shift():
    spans = [Span(0, 2), Span(2, 3), Span(3, 5)]
    t = build(spans, recognizer=Fragile(), identifier=FakeIdentifier(["en", "zh mandarin", "fr"])).transcribe(tone(5))
    # the longest segments come first in a batch: labels are given in batch order, so look them up by time
    assert [(s.start, s.text) for s in t.sentences] == [(0, "Heard 2.00."), (3, "Heard 2.00.")]
    assert [f.stage for f in t.failures] == ["asr"]
    assert t.failures[0].span == Span(2, 3)
    assert isinstance(t.failures[0].error, ModelError)
    assert "out of memory" in str(t.failures[0])
    assert len(t.segments) == 3


class BrokenIdentifier:
    """Fails for the segments of one second only, in place."""

    name = "broken"

    def identify(self, recordings, /):
        return [
            Failure("x", ModelError("no label"), "lid") if len(r[0]) == RATE else LanguageResult("en", None, 0.9)
            for r in recordings
        ]


def test_a_failed_language_keeps_the_text_and_the_others_languages():
    t = build([Span(0, 2), Span(2, 3), Span(3, 6)], identifier=BrokenIdentifier()).transcribe(tone(6))
    assert [s.language for s in t.sentences] == ["en", None, "en"]
    assert [f.stage for f in t.failures] == ["lid"]


class BrokenRestorer(FakeRestorer):
    def restore_words(self, items, /):
        raise ValueError("word count")


def test_without_a_working_restorer_the_text_stays():
    t = build([Span(0, 2)], restorer=BrokenRestorer()).transcribe(tone(2))
    assert t.text == "heard 2.00"
    assert [f.stage for f in t.failures] == ["punc"]


def test_a_detector_that_raises_fails_its_recording_only():
    class Picky(FakeDetector):
        def detect(self, audio, /):
            if len(audio[0]) == 2 * RATE:
                raise RuntimeError("bad shape")
            return super().detect(audio)

    results = list(build(detector=Picky([Span(0, 1)])).transcribe_many([tone(1), tone(2), tone(3)]))
    assert [type(r).__name__ for r in results] == ["Transcript", "Failure", "Transcript"]
    assert results[1].stage == "vad"


def test_a_broken_event_detector_does_not_cost_the_transcript():
    class Broken(FakeEventDetector):
        def detect(self, audio, /):
            raise RuntimeError("no")

    t = build([Span(0, 1)], event_detector=Broken()).transcribe(tone(1))
    assert t.text == "Heard 1.00."
    assert [f.stage for f in t.failures] == ["events"]


def test_events_are_labelled_and_in_time_order():
    events = FakeEventDetector({"speech": [Span(2, 3)], "music": [Span(0, 1)]})
    t = build([Span(0, 1)], event_detector=events).transcribe(tone(4))
    assert [(e.label, e.start) for e in t.events] == [("music", 0), ("speech", 2)]


def test_every_module_can_be_switched_off():
    t = Pipeline(None, None, FakeRecognizer(), None).transcribe(tone(2))
    assert (t.text, t.segments, t.sentences[0].language) == ("heard 2.00", [Span(0.0, 2.0)], None)
    assert t.to_dict()["sentences"][0]["lang"] is None
    t = Pipeline(FakeDetector([Span(0, 1)]), FakeIdentifier(["zh yue"]), None, None).transcribe(tone(2))
    assert (t.text, t.languages[0].dialect) == ("", "yue")
    off = PipelineOptions(vad=False, lid=False, punctuation=False, events=False)
    assert build([Span(0, 1)], options=off).models() == {"asr": "fake-asr"}


def test_punctuation_off_keeps_the_language():
    t = build([Span(0, 1)], restorer=None).transcribe(tone(1))
    assert (t.sentences[0].text, t.sentences[0].language) == ("heard 1.00", "en")


def test_silent_segments_leave_no_sentence():
    t = build([Span(0, 1)], recognizer=FakeRecognizer(lambda x: "")).transcribe(tone(1))
    assert t.sentences == []
    assert t.segments == [Span(0, 1)]
    assert build([]).transcribe(tone(1)).warnings == ["no speech was found"]


def test_languages_that_the_recogniser_lacks_are_routed_or_flagged():
    def own(**kwargs):
        return build(
            [Span(0, 1), Span(1, 2)],
            recognizer=FakeRecognizer(lambda x: "own", languages=frozenset({"en", "zh"})),
            identifier=FakeIdentifier(["en", "fr"]),
            **kwargs,
        )

    other = FakeRecognizer(lambda x: "Autre.", name="whisper", punctuates=True, languages=frozenset({"fr"}))
    routed = own(fallback=other).transcribe(tone(2))
    assert [s.text for s in routed.sentences] == ["Own.", "Autre."]
    assert [s.flags for s in routed.sentences] == [[], ["routed"]]
    flagged = own().transcribe(tone(2))
    assert [s.flags for s in flagged.sentences] == [[], ["unsupported-language"]]
    assert "fr" in flagged.warnings[0]
    assert "starter" in flagged.warnings[0]
    never = own(fallback=other, options=PipelineOptions(route="never")).transcribe(tone(2))
    assert [s.text for s in never.sentences] == ["Own.", "Own."]


def test_channels_can_be_transcribed_separately():
    left, right = tone(2)[0], tone(2)[0]
    right[:RATE] = 0
    pipeline = build(detector=FakeDetector(), options=PipelineOptions(channels="separate"))
    t = pipeline.transcribe((np.stack([left, right], axis=1), RATE))
    assert sorted((s.channel, s.start) for s in t.sentences) == [(0, 0.0), (0, 1.0), (1, 1.0)]
    assert [s.start for s in t.sentences] == sorted(s.start for s in t.sentences)


def test_segments_of_many_recordings_share_batches_and_mates_change_nothing():
    recognizer = FakeRecognizer()
    spans = [Span(float(i), i + 1.0) for i in range(4)]
    sources = [tone(4, 0.1 * (i + 1)) for i in range(3)]
    together = list(build(spans, recognizer=recognizer).transcribe_many(sources))
    assert max(recognizer.batches) > 4
    alone = [build(spans).transcribe(s) for s in sources]
    assert [t.to_dict() for t in together] == [t.to_dict() for t in alone]


def test_long_recordings_without_detection_are_cut_not_dropped():
    t = build(detector=None).transcribe(tone(150))
    assert len(t.sentences) >= 3
    assert t.segments == [Span(0.0, 150.0)]
    assert max(s.end - s.start for s in t.sentences) <= 60
    assert t.sentences[-1].end == 150.0


def test_progress_tells_every_stage():
    steps = []
    build([Span(0, 1)]).transcribe(tone(1), progress=steps.append)
    assert [s.stage for s in steps] == ["open", "vad", "asr", "done"]
    assert steps[-1].done == steps[-1].total == 1.0


def test_results_of_the_wrong_length_are_an_error_not_a_shift():
    class Short(FakeRecognizer):
        def recognize(self, recordings, options=None, /):
            return [Recognition("x", 1.0)] * max(0, len(recordings) - 1)

    t = build([Span(0, 1), Span(1, 2)], recognizer=Short()).transcribe(tone(2))
    assert t.sentences == []
    assert len(t.failures) == 2


def test_an_empty_list_gives_nothing():
    assert list(build().transcribe_many([])) == []


def test_the_warning_of_an_uncovered_language_names_who_answered_and_hints_at_what_is_missing_only():
    def warned(language, covered, **more):
        recognizer = FakeRecognizer(lambda x: "text", name="Whisper-base", languages=frozenset(covered))
        options = PipelineOptions(language=language)
        (found,) = build([Span(0, 1)], recognizer=recognizer, options=options, **more).transcribe(tone(1)).warnings
        return found

    assert warned("fr", {"zh"}).endswith("in the folder of the source)")
    assert warned("Irish", WHISPER_CODES) == "Whisper-base does not cover ga (Irish); its text there is unreliable"
    assert "(" not in warned("fr", {"zh"}, fallback_hint="").partition("(French)")[2]


def test_speech_without_text_is_flagged_and_warned_with_its_level():
    quiet = (tone(20)[0] * 0.0022 / np.abs(tone(20)[0]).max()).astype(np.float32)
    nothing = FakeRecognizer(lambda x: "")
    t = build([Span(0, 19.9)], recognizer=nothing).transcribe(quiet)
    assert t.warnings == ["speech was found in 19.9 s, but nothing was recognised in it (peak -53 dBFS)"]
    assert t.flags == ["no-text"]
    breath = build([Span(0, 0.4)], recognizer=nothing).transcribe(tone(1))
    assert breath.flags == ["no-text"], "short as it is, it is all there was"


def test_a_part_without_text_counts_from_a_length_on():
    def run(missing):
        texts = FakeRecognizer(lambda x: "" if abs(len(x) / 16000 - missing) < 0.01 else "words")
        return build([Span(0, 10), Span(10, 10 + missing)], recognizer=texts).transcribe(tone(10 + missing))

    assert (run(0.5).flags, run(0.5).warnings) == ([], [])
    assert (run(1.5).flags, run(1.5).warnings) == (["no-text"], [])
    (warning,) = run(5).warnings
    assert warning.startswith("nothing was recognised in 5.0 of 15.0 s of speech, at 0:10–0:15 (peak ")


def test_quiet_recordings_are_named_with_their_level():
    samples = tone(2)[0]
    quiet = (samples * 0.00708 / np.abs(samples).max()).astype(np.float32)
    (warning,) = build([Span(0, 2)]).transcribe(quiet).warnings
    assert warning == "the recording is very quiet (peak -43 dBFS): words may be missing; raise its level"
    assert build([Span(0, 2)]).transcribe((quiet * 10, 16000)).warnings == []


@pytest.mark.parametrize(
    ("times", "partly"),
    [
        ([(0.0, 20.0)], False),
        ([(0.2, 1.0), (2.0, 14.0)], False),  # 6 s of silence behind: less than a third
        ([(0.2, 1.0), (2.0, 10.0)], True),
        ([(9.0, 19.5)], True),
        ([(0.1, 4.0), (12.5, 19.5)], True),
        ([], False),  # no times, no judgement
    ],
)
def test_text_that_covers_a_part_of_its_segment_is_flagged(times, partly):
    class Timed(FakeRecognizer):
        def recognize(self, recordings, options, /):
            words = [Word(f"w{i}", a, b, 0.9) for i, (a, b) in enumerate(times)]
            return [Recognition(" ".join(w.text for w in words) or "text", 0.9, [], words) for _ in recordings]

    t = build([Span(30, 50)], recognizer=Timed(lambda _: "")).transcribe(tone(60))
    assert t.flags == (["low-coverage"] if partly else [])
    assert t.warnings == (["the text covers only a part of the speech at 0:30–0:50"] if partly else [])
