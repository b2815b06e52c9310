"""Opened recordings: slices, spooling, bounded memory, cuts."""

import gc
import io
import tracemalloc

import numpy as np
import pytest
from audio_helpers import noise, stored, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from vermilion.audio import Recording, iter_blocks, load_audio, load_channels, open_recordings, opening, quiet_cuts
from vermilion.errors import AudioError, AudioLimitError, OptionsError


class LongWave(io.RawIOBase):
    """A wav file of many hours that exists only as its header."""

    def __init__(self, seconds):
        header = stored(np.zeros(0, np.int16))
        size = seconds * 32000
        at = header.index(b"data") + 4
        self.header = header[:at] + size.to_bytes(4, "little")
        self.size = len(self.header) + size
        self.at = 0

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self):
        return self.at

    def read(self, size=-1):
        size = self.size - self.at if size < 0 else max(0, min(size, self.size - self.at))
        head = self.header[self.at : self.at + size]
        self.at += size
        return head + bytes(size - len(head))


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_reading_two_hours_needs_little_memory():
    total = []
    peak = peak_of(lambda: total.append(sum(b.shape[1] for b in iter_blocks(LongWave(7200)))))
    assert total == [7200 * 16000]
    assert peak < 16e6


def test_opening_an_hour_needs_little_memory(monkeypatch):
    monkeypatch.setattr(opening, "SPOOL_SECONDS", 10.0)
    kept = []
    peak = peak_of(lambda: kept.extend(open_recordings(LongWave(3600))))
    assert kept[0].duration == 3600
    assert peak < 16e6


def test_a_limit_stops_early():
    source = LongWave(36000)
    with pytest.raises(AudioLimitError):
        open_recordings(source, max_seconds=60)
    assert source.at < 100 * 32000


def test_absurd_header_allocates_nothing():
    data = bytearray(stored(noise(50000), kind="FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4  # 68 billion samples
    lengths = []
    peak = peak_of(lambda: lengths.append(len(load_audio(bytes(data)))))
    assert lengths[0] >= 40000
    assert peak < 16e6


@pytest.mark.parametrize("channels", ["mix", "separate"])
def test_spooled_recordings_are_the_same(monkeypatch, channels):
    data = stored(noise(64000).reshape(-1, 2))
    short = open_recordings(data, channels=channels)
    monkeypatch.setattr(opening, "SPOOL_SECONDS", 0.5)
    long = open_recordings(data, channels=channels)
    assert [r.channel for r in long] == [r.channel for r in short] == ([None] if channels == "mix" else [0, 1])
    for a, b in zip(short, long, strict=True):
        assert b.samples.dtype == np.int16
        np.testing.assert_allclose(a.slice(0, 9), b.slice(0, 9), atol=0.51 / 32768)
        b.close()
        b.close()


def test_spooled_file_goes_with_its_recording(monkeypatch, tmp_path):
    monkeypatch.setattr(opening, "SPOOL_SECONDS", 0.5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (recording,) = open_recordings(stored(noise(32000)))
    np.testing.assert_array_equal(recording.slice(0, 2), noise(32000) / np.float32(32768))
    del recording
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_full_temporary_folder_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(opening, "SPOOL_SECONDS", 0.5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(AudioError, match="TMPDIR"):
        open_recordings(stored(noise(32000)))


def test_arrays_at_16_khz_are_not_copied():
    for samples in (noise(1000), noise(1000) / np.float32(32768)):
        (recording,) = open_recordings((samples, 16000))
        assert np.shares_memory(recording.samples, samples)


def test_recordings_are_inputs_too():
    (recording,) = open_recordings(noise(16000))
    (again,) = open_recordings(recording)
    again.close()
    assert recording.duration == 1.0  # closing the second leaves the first
    np.testing.assert_array_equal(load_audio(recording), noise(16000) / np.float32(32768))
    assert load_channels(recording).shape == (1, 16000)
    assert sum(b.shape[1] for b in iter_blocks(recording)) == 16000


def test_separate_channels_of_mono_have_no_number():
    (recording,) = open_recordings(stored(noise(1000)), channels="separate")
    assert recording.channel is None


def test_slices_are_rounded_and_clipped():
    recording = Recording("x", noise(48000))
    assert len(recording.slice(0, 2.01)) == 32160
    assert len(recording.slice(2.01, 2.02)) == 160
    assert len(recording.slice(-5, 99)) == 48000
    assert len(recording.slice(5, 6)) == 0
    assert len(recording.slice(2, 1)) == 0
    assert recording.slice(0, 1).dtype == np.float32
    assert np.abs(recording.slice(0, 3)).max() <= 1


# ---- cuts


@settings(deadline=None, max_examples=40)
@given(seconds=st.floats(0, 40), limit=st.floats(0.1, 12), seed=st.integers(0, 5))
def test_cuts_keep_the_limit_and_leave_no_crumbs(seconds, limit, seed):
    samples = noise(round(seconds * 16000), seed)
    cuts = quiet_cuts(samples, limit)
    pieces = np.diff([0, *cuts, len(samples)])
    if len(samples) <= limit * 16000:
        assert cuts == []
    else:
        assert pieces.max() <= limit * 16000
        assert pieces.min() >= limit * 16000 / 4 - 2


def test_cuts_find_the_pauses():
    samples = tone(25)
    for pause in (7.3, 13.1, 21.5):
        samples[round(pause * 16000) : round((pause + 0.1) * 16000)] *= 0.001
    cuts = [c / 16000 for c in quiet_cuts(samples + np.float32(0.2), 10)]  # an offset does not mislead
    assert len(cuts) == 3
    for cut, pause in zip(cuts, (7.3, 13.1, 21.5), strict=True):
        assert pause <= cut <= pause + 0.1


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_impossible_limit(limit):
    with pytest.raises(OptionsError):
        quiet_cuts(noise(100), limit)
