"""Features: against an independent implementation, one-shot against streaming, statistics files."""

import struct

import numpy as np
import pytest
from audio_helpers import noise, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from vermilion.audio import FeatureExtractor, StreamingFeatureExtractor, num_frames
from vermilion.audio.cmvn import read_matrix
from vermilion.audio.features import mel_weights
from vermilion.errors import AudioError, CheckpointError

PLAIN = FeatureExtractor(np.linspace(5, 15, 80), np.linspace(0.2, 0.5, 80))


def matrix(array, kind=b"DM "):
    rows, columns = array.shape
    data = array.astype("<f8" if kind == b"DM " else "<f4").tobytes()
    return b"\0B" + kind + b"\4" + struct.pack("<i", rows) + b"\4" + struct.pack("<i", columns) + data


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98), (64400, 401)]
)
def test_frame_counts(samples, frames):
    assert num_frames(samples) == frames
    assert PLAIN(np.zeros(samples, np.int16)).shape == (frames, 80)
    assert PLAIN.log_mel(np.zeros(samples, np.float32)).dtype == np.float32


def test_digital_silence_is_the_floor():
    np.testing.assert_allclose(PLAIN.log_mel(np.zeros(800, np.int16)), -15.942385, atol=1e-5)


def test_filters_are_triangles_that_leave_out_the_nyquist_bin():
    weights = mel_weights()
    assert weights.shape == (257, 80)
    assert (weights >= 0).all()
    assert weights.max() <= 1
    assert not weights[256].any()
    assert weights.any(axis=0).all()
    np.testing.assert_allclose(weights[10:240].sum(axis=1), 1, atol=1e-9)  # neighbours add up to one


@pytest.mark.parametrize("level", [30, 3000, 12000])
def test_log_mel_agrees_with_an_independent_implementation(level):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = True
    options.frame_opts.samp_freq = 16000
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = 0
    reference = knf.OnlineFbank(options)
    samples = noise(20000, seed=level, level=level) + (tone(1.25, level=0.2) * level).astype(np.int16)
    reference.accept_waveform(16000, samples.astype(np.float32).tolist())
    reference.input_finished()
    expected = np.array([reference.get_frame(i) for i in range(reference.num_frames_ready)])
    np.testing.assert_allclose(PLAIN.log_mel(samples), expected, atol=1e-3)


def test_int16_and_float_are_the_same_signal():
    samples = noise(5000)
    np.testing.assert_array_equal(PLAIN(samples), PLAIN(samples.astype(np.float32) / 32768))
    np.testing.assert_array_equal(PLAIN(samples), PLAIN(samples.astype(np.float64) / 32768))


@settings(deadline=None, max_examples=30)
@given(first=st.integers(0, 500), count=st.integers(1, 520))
def test_a_frame_does_not_depend_on_its_neighbours(first, count):
    samples = noise(16000 * 6)
    whole = PLAIN(samples)
    count = min(count, len(whole) - first)
    part = PLAIN(samples[first * 160 : (first + count - 1) * 160 + 400])
    np.testing.assert_array_equal(part, whole[first : first + count])


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=30), as_float=st.booleans())
def test_streaming_equals_one_shot(sizes, as_float):
    samples = noise(sum(sizes))
    stream = StreamingFeatureExtractor(PLAIN)
    edges = np.cumsum([0, *sizes])
    chunks = [samples[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    if as_float:
        chunks = [c.astype(np.float32) / 32768 for c in chunks]
    got = np.concatenate([stream.accept(c) for c in chunks])
    np.testing.assert_array_equal(got, PLAIN(samples))


def test_reset_forgets_the_remainder():
    stream = StreamingFeatureExtractor(PLAIN)
    stream.accept(noise(399))
    stream.reset()
    assert len(stream.accept(noise(399))) == 0
    assert len(stream.accept(noise(1))) == 1


def test_blocks_of_a_long_signal_join_to_the_whole():
    samples = noise(16000 * 5 + 77)
    blocks = list(PLAIN.iter_blocks(samples, frames=123))
    assert max(map(len, blocks)) <= 123
    np.testing.assert_array_equal(np.concatenate(blocks), PLAIN(samples))
    assert list(PLAIN.iter_blocks(samples[:100])) == []


@pytest.mark.parametrize("bad", [np.zeros((2, 800), np.float32), np.zeros(800, np.int32), np.zeros(800, np.complex64)])
def test_other_arrays_are_refused(bad):
    with pytest.raises(AudioError, match="one-dimensional int16 or float"):
        PLAIN(bad)
    with pytest.raises(AudioError):
        StreamingFeatureExtractor(PLAIN).accept(bad)


@pytest.mark.parametrize("kind", [b"DM ", b"FM "])
def test_statistics_normalise(tmp_path, kind):
    samples = noise(16000 * 4)
    log_mel = PLAIN.log_mel(samples).astype(np.float64)
    stats = np.zeros((2, 81))
    stats[0, :80], stats[0, 80], stats[1, :80] = log_mel.sum(0), len(log_mel), (log_mel**2).sum(0)
    (tmp_path / "cmvn.ark").write_bytes(matrix(stats, kind))
    features = FeatureExtractor.from_cmvn(tmp_path / "cmvn.ark")(samples)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-3)


def test_variance_has_a_floor(tmp_path):
    stats = np.ones((2, 81))
    (tmp_path / "cmvn.ark").write_bytes(matrix(stats))
    assert FeatureExtractor.from_cmvn(tmp_path / "cmvn.ark").inverse_std[0] == pytest.approx(1e10)


GOOD = matrix(np.ones((2, 81)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0B",
        GOOD[:-1],
        GOOD + b"x",
        b"key " + GOOD,
        GOOD.replace(b"DM ", b"CM "),
        b"\0BDM \4" + struct.pack("<i", 2**31 - 1) + b"\4" + struct.pack("<i", 2**31 - 1),
        b"\0BDM \4" + struct.pack("<i", -2) + b"\4" + struct.pack("<i", -81) + bytes(1296),
        matrix(np.ones((3, 81))),
        matrix(np.ones((2, 41))),
        matrix(np.zeros((2, 81))),
        matrix(np.full((2, 81), np.nan)),
    ],
)
def test_damaged_statistics_are_refused(tmp_path, data):
    (tmp_path / "cmvn.ark").write_bytes(data)
    with pytest.raises(CheckpointError):
        FeatureExtractor.from_cmvn(tmp_path / "cmvn.ark")


def test_missing_statistics(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read"):
        read_matrix(tmp_path / "none.ark")


def test_statistics_of_a_wrong_size():
    with pytest.raises(CheckpointError, match="shape"):
        FeatureExtractor(np.zeros(40), np.ones(40))
