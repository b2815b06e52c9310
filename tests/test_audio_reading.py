"""Every kind of source, good and bad."""

import io
import os
import struct
import threading

import numpy as np
import pytest
from audio_helpers import Pipe, encoded, noise, stored, tone
from hypothesis import given, settings
from hypothesis import strategies as st

from vermilion.audio import describe, iter_blocks, load_audio, load_channels, open_recordings
from vermilion.errors import AudioError, AudioLimitError, OptionsError

STEREO = np.stack([tone(2, 44100, 440), tone(2, 44100, 1000, 0.1)], axis=1)


def loudness(samples, frequency):
    """Amplitude of a tone."""
    wave = np.exp(-2j * np.pi * frequency * np.arange(len(samples)) / 16000)
    return 2 * abs(np.mean(samples * wave))


# ---- formats


def test_16_khz_16_bit_mono_passes_bit_exactly(tmp_path):
    samples = noise(30001)
    for kind in ("WAV", "FLAC", "AIFF"):
        np.testing.assert_array_equal(load_audio(stored(samples, kind=kind)), samples / np.float32(32768))
    path = tmp_path / "a file.wav"
    path.write_bytes(stored(samples))
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(load_audio(source), samples / np.float32(32768))
    with path.open("rb") as file:
        assert len(load_audio(file)) == len(load_audio(file)) == 30001  # rewound, left open


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"]
)
def test_wav_of_any_width(subtype):
    got = load_audio(stored(tone(), subtype=subtype))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[100:16000], tone()[100:], atol=0.03)  # ADPCM needs some samples to adapt


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000, 192000])
def test_any_rate_is_resampled_in_blocks(rate):
    soxr = pytest.importorskip("soxr")
    samples = tone(7.3, rate)
    got = load_audio(stored(samples, rate, subtype="FLOAT"))
    np.testing.assert_allclose(got, soxr.resample(samples, rate, 16000), atol=1e-5)
    assert abs(len(got) - 7.3 * 16000) <= 1


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp3", "libmp3lame", 44100),
        ("mp4", "aac", 44100),
        ("adts", "aac", 44100),
        ("mpegts", "aac", 44100),
        ("mov", "pcm_s24le", 44100),
        ("ogg", "libopus", 48000),
        ("webm", "libopus", 48000),
        ("matroska", "flac", 44100),
        ("ogg", "flac", 44100),
        ("avi", "pcm_s16le", 44100),
        ("flv", "libmp3lame", 44100),
        ("asf", "libmp3lame", 44100),
        ("au", "pcm_s16be", 44100),
        ("w64", "pcm_s16le", 44100),
    ],
)
def test_containers_and_codecs(container, codec, rate):
    stereo = np.stack([tone(2, rate, 440), tone(2, rate, 1000, 0.1)], axis=1)
    try:
        data = encoded(stereo, rate, container, codec)
    except ValueError as error:  # UnknownCodecError
        pytest.skip(f"this build of FFmpeg cannot write it: {error}")
    mixed = load_audio(data)
    assert len(mixed) == pytest.approx(32000, abs=2000)
    assert loudness(mixed[4000:28000], 440) == pytest.approx(0.15, rel=0.05)
    assert loudness(mixed[4000:28000], 1000) == pytest.approx(0.05, rel=0.1)
    left, right = load_channels(data)
    assert loudness(left[4000:28000], 440) == pytest.approx(0.3, rel=0.05)
    assert loudness(right[4000:28000], 1000) == pytest.approx(0.1, rel=0.1)
    np.testing.assert_array_equal(load_audio(Pipe(data)), mixed)


def test_video_gives_its_sound_in_place():
    late = encoded(STEREO, 44100, "mp4", "aac", delay=0.5, video=True)
    (recording,) = open_recordings(late)
    assert recording.duration == pytest.approx(2.5, abs=0.1)
    assert np.abs(recording.slice(0, 0.4)).max() < 0.01
    assert np.abs(recording.slice(0.6, 2.4)).max() > 0.15


def test_lost_packets_become_silence():
    data = encoded(STEREO, 44100, "matroska", "pcm_s16le", jump=(1.0, 3.0))
    got = load_audio(data)
    assert len(got) == pytest.approx(5 * 16000, abs=800)
    assert not got[18000:62000].any()
    assert np.abs(got[66000:79000]).max() > 0.15


def test_absurd_time_stamps_do_not_become_days_of_silence():
    data = encoded(STEREO[:22050], 44100, "matroska", "pcm_s16le", jump=(0.3, 400 * 24 * 3600.0))
    (recording,) = open_recordings(data)
    assert recording.duration == pytest.approx(0.5, abs=0.05)
    assert "time stamps" in recording.warnings[0]
    plausible = encoded(STEREO[:22050], 44100, "matroska", "pcm_s16le", jump=(0.3, 3600.0))
    with pytest.raises(AudioLimitError):
        load_audio(plausible, max_seconds=60)


def test_video_without_sound():
    with pytest.raises(AudioError, match="no audio stream"):
        load_audio(encoded(STEREO, 44100, "mp4", None, video=True))


# ---- damage


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 100_000])
@pytest.mark.parametrize("kind", ["noise", "zeros"])
def test_wav_headers_of_live_sources(size, kind):
    samples = noise(32000) if kind == "noise" else np.zeros(32000, np.int16)
    data = stored(samples)
    at = data.index(b"data") + 4
    (recording,) = open_recordings(data[:at] + struct.pack("<I", size) + data[at + 4 :])
    np.testing.assert_array_equal(recording.samples, samples / np.float32(32768))
    assert recording.warnings


@pytest.mark.parametrize(
    ("data", "least"),
    [
        (stored(noise(32000))[:20001], 9000),
        (stored(noise(32000), kind="FLAC")[:30000], 10000),
        (encoded(STEREO, 44100, "matroska", "aac")[:-15000], 8000),
    ],
)
def test_truncated_files_give_what_is_there(data, least, capfd):
    (recording,) = open_recordings(data)
    assert least < len(recording.samples) < 32000
    assert recording.warnings
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle_loses_only_a_part(capfd):
    for data in (stored(noise(96000), kind="FLAC"), encoded(STEREO, 44100, "mp3", "libmp3lame")):
        broken = bytearray(data)
        broken[len(data) // 2 : len(data) // 2 + 600] = b"\x55" * 600
        (recording,) = open_recordings(bytes(broken))
        assert len(recording.samples) > 16000
    assert capfd.readouterr() == ("", "")


SMALL = [stored(noise(4000)), stored(noise(4000), kind="FLAC"), encoded(STEREO[:9000], 44100, "mp4", "aac")]
SMALL += [
    encoded(STEREO[:9000], 44100, c, k) for c, k in (("mp3", "libmp3lame"), ("matroska", "flac"), ("avi", "pcm_s16le"))
]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(SMALL), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=12))
def test_whatever_happens_to_a_file_it_reads_or_fails_as_it_should(data, damage):
    broken = bytearray(data)
    for where, patch in damage:
        at = int(where**3 * len(data))  # headers above all
        broken[at : at + len(patch)] = patch
    try:
        samples = load_audio(bytes(broken), max_seconds=30)
    except AudioError:
        return
    assert np.isfinite(samples).all()


def test_flac_of_unknown_length():
    data = bytearray(stored(noise(32000), kind="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (recording,) = open_recordings(bytes(data))
    assert len(recording.samples) == 32000
    assert not recording.warnings


@pytest.mark.parametrize(
    "data",
    [
        b"just some text, nothing to hear\n" * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"RIFF\x10\0\0\0WAVEfmt ",
        b"fLaC" + b"\xff" * 300,
        b"ID3\x04" + bytes(200),
        os.urandom(0) + b"\0" * 5000,
        b"\x00\x00\x00\x18ftypmp42" + bytes(1000),
    ],
)
def test_no_audio(data, capfd):
    with pytest.raises(AudioError, match="cannot read bytes"):
        load_audio(data)
    assert capfd.readouterr() == ("", "")


def test_playlists_open_nothing_else(tmp_path, capfd):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(stored(noise(16000)))
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ):
        path = tmp_path / "list.m3u8"
        path.write_text(text)
        with pytest.raises(AudioError):
            load_audio(path)


def test_empty_and_short():
    with pytest.raises(AudioError, match="empty"):
        load_audio(b"")
    with pytest.raises(AudioError, match="empty"):
        load_audio(Pipe(b""))
    assert load_audio(stored(np.zeros(0, np.int16))).shape == (0,)
    assert load_channels(stored(np.zeros((0, 2), np.int16))).shape == (1, 0)
    assert load_audio(np.zeros(0, np.float32)).shape == (0,)
    assert load_audio([]).shape == (0,)
    assert load_audio(stored(noise(10))).shape == (10,)
    assert open_recordings(stored(np.zeros(0, np.int16)))[0].duration == 0


# ---- paths and file objects


def test_bad_paths(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path, "a\0b.wav", "/dev/zero"):
        with pytest.raises(AudioError, match="cannot read"):
            load_audio(path)
    (tmp_path / "empty.mp3").touch()
    with pytest.raises(AudioError, match="empty"):
        load_audio(tmp_path / "empty.mp3")


@pytest.mark.parametrize(
    "url", ["http://localhost/a.wav", "https://localhost/a.wav", "file:///etc/hostname", "rtsp://x/y"]
)
def test_addresses_are_refused(url):
    with pytest.raises(AudioError, match="never fetched"):
        load_audio(url)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe(tmp_path):
    data = stored(noise(16000))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
    writer.start()
    assert len(load_audio(tmp_path / "pipe")) == 16000
    writer.join()


def test_file_objects():
    data = stored(noise(16000))
    written = io.BytesIO()
    written.write(data)  # stands at its end
    assert len(load_audio(written)) == 16000
    with pytest.raises(AudioError, match="binary"):
        load_audio(io.StringIO("text"))
    closed = io.BytesIO(data)
    closed.close()
    with pytest.raises(AudioError, match="closed"):
        load_audio(closed)


def test_endless_pipe_with_a_limit():
    class Endless(Pipe):
        def read(self, size=-1):
            return bytes(1 << 20)

    with pytest.raises(AudioLimitError):
        load_audio(Endless(b""), max_seconds=5)


# ---- arrays


def test_number_formats():
    ints = noise(1000)
    expected = ints / np.float32(32768)
    np.testing.assert_array_equal(load_audio(ints), expected)
    np.testing.assert_array_equal(load_audio((ints, 16000)), expected)
    np.testing.assert_array_equal(load_audio(ints.tolist()), expected)
    np.testing.assert_array_equal(load_audio((ints.astype(np.int32) << 16, 16000)), expected)
    np.testing.assert_array_equal(load_audio(expected.astype(np.float64)), expected)
    np.testing.assert_array_equal(load_audio(expected.tolist()), expected)
    np.testing.assert_allclose(load_audio((((ints >> 8) + 128).astype(np.uint8), 16000)), expected, atol=1 / 128)


def test_channel_layouts():
    pair = np.stack([tone(), tone(frequency=1000)], axis=1)
    for array in (pair, pair.T, np.asfortranarray(pair)):
        np.testing.assert_allclose(load_audio((array, 16000)), pair.mean(1), atol=1e-6)
        np.testing.assert_array_equal(load_channels((array, 16000)), pair.T)
    assert load_audio((pair[:, :1], 16000)).shape == (16000,)
    assert load_audio((pair, 48000)).shape == (5333,)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((16000, np.zeros(100, np.int16)), "wrong order"),
        ((np.zeros(100, np.int16), 0), "sample rate"),
        ((np.zeros(100, np.int16), -16000), "sample rate"),
        ((np.zeros(100, np.int16), float("nan")), "sample rate"),
        ((np.zeros(100, np.int16), "16000"), "sample rate"),
        ((np.zeros(100, np.int16), True), "sample rate"),
        ((np.zeros((2, 3, 4), np.float32), 16000), "two-dimensional"),
        ((np.zeros((500, 400), np.float32), 16000), "channels"),
        (np.zeros(100, np.complex64), "samples must be"),
        (np.zeros(100, bool), "samples must be"),
        (np.zeros(100, np.int64), "samples must be"),
        ([1, 2, 100_000], "samples must be"),
        (["a.wav", "b.wav"], "several recordings"),
        ([np.zeros(3), np.zeros(4)], "cannot take"),
        (np.array(["a"]), "samples must be"),
        (None, "cannot take NoneType"),
        (16000, "cannot take int"),
        (np.array([0.0, np.nan], np.float32), "not numbers"),
        (np.array([0.0, np.inf], np.float64), "not numbers"),
        (np.array([0.0, 12000.0], np.float32), "int16"),
        ((np.array([0.0, -12000.0]), 48000), "int16"),
        (stored(np.array([0.1, np.nan, 0.2]), subtype="FLOAT"), "not numbers"),
        (stored(np.array([0.1, 9000.0, 0.2]), subtype="FLOAT"), "int16"),
    ],
)
def test_impossible_samples(source, message):
    with pytest.raises(AudioError, match=message):
        load_audio(source)


def test_overshoot_is_clipped_with_a_warning():
    (recording,) = open_recordings(np.array([0.5, 1.5, -2.0], np.float32))
    np.testing.assert_array_equal(recording.samples, [0.5, 1.0, -1.0])
    assert "clipped" in recording.warnings[0]
    assert open_recordings(np.array([0.5, 1.01], np.float32))[0].warnings == []


# ---- limits


@pytest.mark.parametrize(
    "source", [stored(noise(32001)), noise(32001), (noise(96010), 48000), Pipe(stored(noise(32001)))]
)
def test_limit(source):
    with pytest.raises(AudioLimitError, match="limit"):
        load_audio(source, max_seconds=2)


def test_exactly_at_the_limit():
    assert len(load_audio(stored(noise(32000)), max_seconds=2)) == 32000
    assert len(load_audio(noise(32000), max_seconds=2)) == 32000


def test_unknown_channel_mode():
    with pytest.raises(OptionsError):
        list(iter_blocks(noise(100), channels="left"))


def test_names(tmp_path):
    assert describe(tmp_path / "a.wav") == str(tmp_path / "a.wav")
    assert describe(b"123") == "bytes"
    assert describe(noise(3)) == describe((noise(3), 16000)) == "samples"
    assert describe(io.BytesIO()) == "file object"
    (tmp_path / "x.wav").touch()
    with (tmp_path / "x.wav").open("rb") as file:
        assert describe(file) == str(tmp_path / "x.wav")
