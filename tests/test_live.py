"""Live sessions: the order of events, equal finals, stable partials, memory, failures."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import noise, write_aed, write_vad

from vermilion import Pipeline, PipelineOptions, load
from vermilion.decoding.options import DecodingOptions
from vermilion.errors import AudioError, ModelError, OptionsError, VermilionError
from vermilion.live import (
    EventChanged,
    Final,
    LiveOptions,
    LiveTranscriber,
    Partial,
    SpeechEnded,
    SpeechStarted,
    event_to_dict,
    load_live,
)
from vermilion.live.agreement import Agreement, units_of
from vermilion.live.audio import StreamAudio
from vermilion.live.sounds import SoundTracker
from vermilion.transcript import Failure, LanguageResult, Recognition, Word
from vermilion.vad import EventDetector, StreamingVadOptions
from vermilion.vad.stream_segmentation import StreamSegmenter

RATE = 16000


class LoudnessDetector:
    """A stream detector to which loud is speech."""

    name = "loudness"

    def __init__(self, options=None):
        self.options = options or StreamingVadOptions()
        self.segmenter, self.rest = StreamSegmenter(self.options), np.zeros(0, np.float32)

    def fork(self, options=None):
        return LoudnessDetector(options or self.options)

    def accept(self, samples):
        self.rest = np.concatenate([self.rest, samples])
        count = len(self.rest) // 160
        frames, self.rest = self.rest[: 160 * count].reshape(count, 160), self.rest[160 * count :]
        return [self.segmenter.step(float(np.abs(f).max() > 0.05)) for f in frames]


@dataclass
class Counting:
    """Writes a word per half second it hears; `asked` keeps the pieces."""

    asked: list = field(default_factory=list)
    fail: bool = False
    name: str = "counting"
    punctuates: bool = True

    def recognize(self, recordings, options, /):
        found = []
        for samples, rate in recordings:
            self.asked.append(samples)
            if self.fail:
                found.append(Failure("x", ModelError("no memory"), "asr"))
                continue
            count = max(1, round(2 * len(samples) / rate))
            words = [Word(f"w{i}", i / 2, i / 2 + 0.4, 0.9) for i in range(count)]
            found.append(Recognition(" ".join(w.text for w in words), 0.9, words=words, model=self.name))
        return found


def transcriber(recognizer=None, background=False, **more):
    pipeline = Pipeline(None, None, recognizer or Counting(), None, PipelineOptions(vad=False))
    return LiveTranscriber(pipeline, LoudnessDetector(), background=background, **more)


def talk(*lengths, seed=0):
    """Noise and silence by turns, beginning with silence; seconds."""
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(-0.5, 0.5, int(s * RATE)) if i % 2 else np.zeros(int(s * RATE)) for i, s in enumerate(lengths)]
    return np.concatenate(parts).astype(np.float32)


def play(session, samples, chunk=1600):
    events = []
    for start in range(0, len(samples), chunk):
        events += session.accept(samples[start : start + chunk])
    return events + session.finish()


def check_order(events, duration):
    """The state machine of every stream."""
    open_, over, told, last = None, [], 0, 0.0
    for event in events:
        match event:
            case SpeechStarted():
                assert open_ is None
                assert event.utterance == len(over) + told + 1
                assert event.time >= last - 1e-9
                open_, last = event.utterance, event.time
            case Partial():
                assert event.utterance == open_
                assert last <= event.time <= duration + 1e-9
                assert event.text or event.tentative
            case SpeechEnded():
                assert event.utterance == open_
                assert last <= event.time <= duration + 1e-9
                last = event.time
                over.append(open_)
                open_ = None
            case Final():
                assert over[0] == event.utterance == told + 1
                assert 0 <= event.start <= event.end <= duration + 1e-9
                over.pop(0)
                told += 1
    assert (open_, over) == (None, [])
    return told


def without_partials(events):
    return [
        (type(e).__name__, e.utterance, round(getattr(e, "time", 0.0), 3), getattr(e, "text", ""))
        for e in events
        if isinstance(e, SpeechStarted | SpeechEnded | Final)
    ]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.floats(0.02, 4.0), min_size=1, max_size=9),
    chunks=st.lists(st.integers(1, 30000), min_size=1, max_size=5),
    silence=st.sampled_from([50, 200, 500]),
    most=st.sampled_from([2.0, 3.0, 20.0]),
    speculate=st.booleans(),
)
def test_order_of_events_for_any_speech_and_any_chunks(lengths, chunks, silence, most, speculate):
    samples = talk(*lengths)
    options = LiveOptions(silence_ms=silence, max_utterance_s=most, speculate=speculate)
    found = []
    for sizes in (chunks, [1600]):
        session = transcriber().session(options)
        events, start, turn = [], 0, 0
        while start < len(samples):
            size = sizes[turn % len(sizes)]
            events += session.accept(samples[start : start + size])
            start, turn = start + size, turn + 1
        events += session.finish()
        finals = [e for e in events if isinstance(e, Final)]
        assert check_order(events, len(samples) / RATE) == len(finals) == session.report().utterances
        assert all(e.end - e.start <= most + 0.2 for e in finals)
        assert session.finish() == []
        found.append(events)
    if most == 20.0:  # a cut depends on how much has arrived, and so does whether a final comes before the next start
        assert sorted(without_partials(found[0])) == sorted(without_partials(found[1]))


def test_background_sessions_tell_the_same_in_the_same_order():
    samples = talk(0.5, 1.5, 0.8, 2.0, 0.8, 1.0, 0.6)
    expected = without_partials(play(transcriber().session(), samples))
    with transcriber(background=True) as live, ThreadPoolExecutor(6) as pool:
        streams = [pool.submit(play, live.session(), samples, 800) for _ in range(6)]
        for stream in streams:
            events = stream.result(timeout=60)
            check_order(events, len(samples) / RATE)
            starts = sorted(e for e in without_partials(events) if e[0] != "Final")
            assert starts == sorted(e for e in expected if e[0] != "Final")
            assert [e for e in without_partials(events) if e[0] == "Final"] == [e for e in expected if e[0] == "Final"]


def test_an_utterance_ends_behind_its_last_speech_and_the_guess_is_used():
    recognizer = Counting()
    live = transcriber(recognizer)
    session = live.session(LiveOptions(partials=False))
    events = play(session, talk(0.5, 2.0, 1.0))
    [final] = [e for e in events if isinstance(e, Final)]
    assert final.start == pytest.approx(0.45, abs=0.06)
    assert final.end == pytest.approx(2.5 + 0.12, abs=0.06)
    assert session.report().guessed == 1
    assert len(recognizer.asked) == 1, "decoded once, before the silence was complete"
    assert len(recognizer.asked[0]) == round((final.end - final.start) * RATE)


def test_a_wrong_guess_costs_nothing_but_time():
    recognizer = Counting()
    session = transcriber(recognizer).session(LiveOptions(partials=False))
    events = play(session, talk(0.5, 1.0, 0.35, 1.0, 1.0))  # a pause that is shorter than the end of an utterance
    [final] = [e for e in events if isinstance(e, Final)]
    assert final.end > 2.8
    assert len(recognizer.asked) == 2
    assert final.text == "w0 w1 w2 w3 w4"


def test_long_speech_is_cut_where_it_is_quiet():
    samples = talk(0.2, 12.0, 1.0)
    samples[int(4.2 * RATE) : int(4.28 * RATE)] *= 0.01
    events = play(transcriber().session(LiveOptions(max_utterance_s=5.0)), samples)
    finals = [e for e in events if isinstance(e, Final)]
    assert finals[0].end == pytest.approx(4.24, abs=0.03)
    assert [a.end for a in finals[:-1]] == [b.start for b in finals[1:]]


def test_partials_grow_and_agree():
    session = transcriber().session()
    events = play(session, talk(0.5, 4.0, 1.0))
    partials = [e for e in events if isinstance(e, Partial)]
    texts = [p.text for p in partials]
    assert texts[-1].startswith("w0 w1 w2 w3 w4 w5")
    assert all(b.startswith(a) for a, b in zip(texts, texts[1:], strict=False))
    report = session.report()
    assert report.partials == len(partials) > 4
    assert (report.changed_words, report.changed_share) == (0, 0.0)
    assert report.shown_words > 5
    assert report.first_partial.median is not None
    assert play(transcriber().session(LiveOptions(partials=False)), talk(0.5, 4.0, 1.0))
    assert not any(isinstance(e, Partial) for e in play(transcriber().session(LiveOptions(partials=False)), samples_()))


def samples_():
    return talk(0.3, 1.0, 0.8)


def test_agreement():
    shown = Agreement()
    assert shown.add("hello wor") == ("", "hello wor")
    assert shown.add("hello world") == ("hello", " world")
    assert shown.add("Hello, world how") == ("Hello, world", " how")
    assert shown.add("help") == ("Hello, world", "")  # one that wavers changes nothing
    assert shown.add("help me")[0] == "help"  # two that agree do
    assert (shown.count, shown.changed) == (3, 2)
    shown.finish("Help me.")
    assert shown.changed == 2
    shown.finish("Yelp me.")
    assert shown.changed == 3
    assert units_of("你好 world，再见") == ["你", "好", " world，", "再", "见"]
    assert "".join(units_of(" a  b你 ")).strip() == "a  b你"


def test_only_newer_partials_are_heard_when_the_machine_is_slow():
    live = transcriber()
    live.engine.background = False
    heard = []
    for n in range(5):
        live.engine.draft(1, np.zeros(1600 * (n + 1), np.float32), heard.append)
    live.engine.draft(2, np.zeros(800, np.float32), heard.append)
    assert live.engine.dropped == 4
    assert live.engine.work()
    assert not live.engine.work()
    assert len(heard) == 2


def test_finals_come_before_partials_and_share_a_batch():
    calls = []

    class Batches(Counting):
        def recognize(self, recordings, options, /):
            calls.append(len(recordings))
            return super().recognize(recordings, options)

    live = transcriber(Batches())
    live.engine.draft(1, np.zeros(16000, np.float32), lambda _: None)
    answers = [live.engine.final(noise(1.0, i)) for i in range(3)]
    answers[1].cancel()
    assert live.engine.work()
    assert calls == [2]
    assert [a.done() for a in answers] == [True, True, True]
    assert live.engine.work()
    assert calls == [2, 1]


def test_a_failing_utterance_is_told_in_its_place():
    recognizer = Counting(fail=True)
    session = transcriber(recognizer).session()
    events = play(session, talk(0.5, 1.0, 0.8, 1.0, 0.8))
    assert check_order(events, 4.1) == 2
    assert all("no memory" in e.failure for e in events if isinstance(e, Final))
    assert session.report().failures == 2


def test_a_recogniser_that_raises_is_told_as_well():
    class Raising(Counting):
        def recognize(self, recordings, options, /):
            raise ValueError("broken")

    events = play(transcriber(Raising()).session(), talk(0.5, 1.0, 0.8))
    [final] = [e for e in events if isinstance(e, Final)]
    assert "broken" in final.failure


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_and_channels(rate):
    n = int(rate * 4.0)
    loud = ((np.arange(n) > rate) & (np.arange(n) < 2.5 * rate)) * 0.4 * np.sin(2 * np.pi * 300 * np.arange(n) / rate)
    stereo = (np.stack([loud, loud], 1) * 32767).astype(np.int16)
    session = transcriber().session()
    events = []
    for start in range(0, n, 1000):
        events += session.accept(stereo[start : start + 1000], rate)
    events += session.finish()
    [final] = [e for e in events if isinstance(e, Final)]
    assert final.start == pytest.approx(0.95, abs=0.06)
    assert final.end == pytest.approx(2.62, abs=0.06)
    assert session.seconds == pytest.approx(4.0, abs=0.01)


def test_what_is_no_audio_is_refused():
    session = transcriber().session()
    session.accept(np.zeros(100, np.float32))
    for bad in (np.zeros((2, 2, 2), np.float32), np.array(["a"]), np.array([np.nan], np.float32)):
        with pytest.raises(AudioError):
            session.accept(bad)
    with pytest.raises(AudioError, match="goes on with"):
        session.accept(np.zeros(10, np.float32), 8000)
    session.finish()
    with pytest.raises(VermilionError, match="finished"):
        session.accept(np.zeros(10, np.float32))


def test_options_are_checked():
    for wrong in (
        {"silence_ms": 5},
        {"max_utterance_s": 0.5},
        {"vad_mode": 4},
        {"partial_interval_ms": 1},
        {"tail_ms": -1},
    ):
        with pytest.raises(OptionsError):
            LiveOptions(**wrong)
    assert LiveOptions(vad_mode=3).vad.min_silence_frame == 5
    assert LiveOptions(vad_mode=3, silence_ms=800).vad.min_silence_frame == 80
    with pytest.raises(OptionsError, match="recogniser"):
        LiveTranscriber(Pipeline(None, None, None, None), LoudnessDetector())


def test_memory_of_an_endless_stream_is_bounded():
    session = transcriber().session(LiveOptions(max_utterance_s=4.0))
    turn = talk(0.4, 3.0, 0.8)
    size = len(session._audio._data)
    for _ in range(150):
        session.accept(turn)
    assert len(session._audio._data) == size
    assert session._audio._held <= size
    assert len(session._waiting) <= 1
    assert session.report().utterances >= 149
    assert len(session._arrivals) <= 4096
    kept = StreamAudio(1.0)
    for i in range(100):
        kept.append(np.full(700, i, np.float32))
    assert np.array_equal(kept.slice(kept.total - 1400, kept.total), np.repeat([98, 99], 700).astype(np.float32))
    assert len(kept.slice(0, kept.total)) <= 32000


def test_an_utterance_can_be_cut_by_hand_and_nothing_is_lost():
    live = transcriber()
    session = live.session()
    samples = talk(0.3, 3.0, 1.0)
    events = session.accept(samples[:32000]) + session.cut() + session.cut()
    events += session.accept(samples[32000:]) + session.finish()
    check_order(events, len(samples) / RATE)
    finals = [e for e in events if isinstance(e, Final)]
    assert len(finals) == 2
    assert abs(finals[0].end - 2.0) < 0.05
    assert abs(finals[1].start - 2.0) < 0.05
    assert 3.3 <= finals[1].end < 3.6
    silent = live.session()
    assert silent.accept(np.zeros(16000, np.float32)) + silent.cut() + silent.finish() == []


def test_a_session_may_know_its_language():
    class Saying(Counting):
        uses_language = True

        def recognize(self, recordings, options, /, languages=None):
            assert languages == ["fr"] * len(recordings)
            return super().recognize(recordings, options)

    live = transcriber(Saying())
    finals = [e for e in play(live.session(language="fr"), talk(0.3, 2.0, 0.8)) if isinstance(e, Final)]
    assert [(f.language, f.failure) for f in finals] == [("fr", None)]


def test_a_broken_notify_stops_nobody(caplog):
    def broken():
        raise RuntimeError("owner's fault")

    with transcriber(background=True) as live:
        one, two = live.session(notify=broken), live.session()
        samples, events = talk(0.3, 2.0, 0.8), []
        for start in range(0, len(samples), 1600):
            events += one.accept(samples[start : start + 1600])
            time.sleep(0.005)
        events += one.finish()
        assert any(isinstance(e, Final) and e.text for e in events)
        assert any(isinstance(e, Final) for e in play(two, samples))


def test_closed_sessions_and_transcribers():
    live = transcriber(background=True)
    session = live.session()
    session.accept(talk(0.2, 1.0))
    session.close()
    assert session.finish() == []
    live.close()
    other = live.session()
    with pytest.raises(VermilionError, match="closed"):
        play(other, talk(0.2, 1.0, 1.0))


# ---- on networks


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_aed(root / "FireRedASR2-AED")
    write_vad(root / "FireRedVAD/VAD")
    write_vad(root / "FireRedVAD/Stream-VAD", look_ahead=0)
    write_vad(root / "FireRedVAD/AED", outputs=3)
    return root


def test_finals_equal_the_offline_pipeline_for_the_same_segments(models):
    samples = talk(0.4, 2.0, 0.9, 3.0, 0.8, 1.2, 0.7)
    decoding = DecodingOptions(guards=False)  # random networks would keep no text
    options = PipelineOptions(vad=False, lid=False, punctuation=False, events=False, on_noise="keep", decoding=decoding)
    offline = load(models, options=options)
    live = LiveTranscriber(offline, LoudnessDetector(), background=False)
    session = live.session()
    finals = [e for e in play(session, samples, 777) if isinstance(e, Final)]
    assert len(finals) == 3
    for final in finals:
        piece = samples[round(final.start * RATE) : round(final.end * RATE)]
        alone = offline.transcribe((piece, RATE))
        assert final.text == alone.text
        assert [w.text for w in final.words] == [w.text for w in alone.words]
        assert [w.start - final.start for w in final.words] == pytest.approx([w.start for w in alone.words])
    assert any(f.text for f in finals)


def test_partials_come_from_the_ctc_head(models):
    live = load_live(models, options=PipelineOptions(lid=False), background=False)
    assert type(live.engine.drafter).__name__ == "CtcDrafter"
    pieces = [noise(1.0, 1), noise(2.0, 2), np.zeros(10, np.float32)]
    together = live.engine.drafter.draft(pieces)
    assert together == [live.engine.drafter.draft([p])[0] for p in pieces]
    assert together[2] == ""
    assert live.models()["events"] == "FireRedVAD-AED"


def test_music_and_singing_are_those_of_the_offline_detector(models):
    detector = EventDetector.from_pretrained(models / "FireRedVAD/AED")
    samples = noise(9.0, 4)
    audio, tracker, events = StreamAudio(12.0), SoundTracker(detector), []
    for start in range(0, len(samples), 1600):
        audio.append(samples[start : start + 1600])
        events += tracker.step(audio)
    events += tracker.step(audio, last=True)
    whole = SoundTracker(detector)
    kept = StreamAudio(12.0)
    kept.append(samples)
    assert sorted(events, key=str) == sorted(whole.step(kept, last=True), key=str)
    assert tracker._done == whole._done == 1 + (len(samples) - 400) // 160
    assert tracker.seconds < 12


def test_events_as_plain_values():
    final = Final(1, 0.5, 1.0, "hi", language="zh", dialect="yue", confidence=0.51234, delay=0.2)
    values = event_to_dict(final)
    assert (values["type"], values["lang"], values["confidence"], values["start_ms"]) == ("Final", "zh yue", 0.512, 500)
    assert "failure" not in values
    assert event_to_dict(Final(1, 0, 1, "", failure="x"))["failure"] == "x"
    assert event_to_dict(EventChanged("music", True, 1.5)) == {
        "type": "EventChanged", "label": "music", "active": True, "time_ms": 1500,
    }  # fmt: skip
    assert event_to_dict(Partial(2, 1.0, "a", " b"))["tentative"] == " b"
    assert event_to_dict(SpeechStarted(1, 0.25)) == {"type": "SpeechStarted", "utterance": 1, "time_ms": 250}


def test_partials_are_identified_anew_unless_the_language_is_known():
    asked = []

    class Polyglot(Counting):
        uses_language = True

        def recognize(self, recordings, options, /, languages=None):
            asked.append((options.beam_size, languages))
            return super().recognize(recordings, options)

    class Identifier:
        name = "lid"

        def identify(self, recordings, /):
            return [LanguageResult("fr", None, 0.9) for _ in recordings]

    for language, heard in ((None, None), ("de", "de")):
        asked.clear()
        options = PipelineOptions(vad=False, language=language)
        pipeline = Pipeline(None, Identifier(), Polyglot(), None, options)
        events = play(LiveTranscriber(pipeline, LoudnessDetector(), background=False).session(), talk(0.3, 1.0, 0.8))
        assert {tuple(found) for beam, found in asked if beam == 1} == {(heard,)}
        [final] = [e for e in events if isinstance(e, Final)]
        assert final.language == (language or "fr")
        assert math.isfinite(final.delay)
