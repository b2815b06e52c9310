"""All of a recording, on the time line that a player shows: members, streams, time stamps, channels, levels."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from vermilion.audio import iter_blocks, load_audio, open_recordings
from vermilion.audio.level import raised
from vermilion.audio.recording import Recording
from vermilion.errors import AudioError, OptionsError

RATE = 16000


def sound(seconds, seed=0, rate=RATE):
    return (np.random.default_rng(seed).standard_normal(round(seconds * rate)) * 3000).astype(np.int16)


def tone(seconds, rate=RATE, hertz=440.0):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def wav(samples, announced=None, data=None):
    body = samples.tobytes() if data is None else data
    size = len(body) if announced is None else announced
    fmt = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + size) + b"WAVE" + fmt + b"data" + struct.pack("<I", size) + body


def flac(samples):
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="FLAC")
    return out.getvalue()


def muxed(tracks, container="matroska", codec="pcm_s16le", stamp=None, default=None, languages=(), rate=RATE):
    """Encode (n,) int16 tracks; `stamp(number, seconds)` gives the time of every 20 ms frame."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        streams = []
        for i, _ in enumerate(tracks):
            stream = file.add_stream(codec, rate=rate, layout="mono")
            if languages:
                stream.metadata["language"] = languages[i]
            if default is not None:
                stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
            streams.append(stream)
        step = rate // 50
        for stream, track in zip(streams, tracks, strict=True):
            for number in range(len(track) // step):
                frame = av.AudioFrame.from_ndarray(
                    track[None, number * step : (number + 1) * step], format="s16", layout="mono"
                )
                seconds = number * step / rate
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round((stamp(number, seconds) if stamp else seconds) * rate)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return out.getvalue()


def read(data, **options):
    warnings = []
    pieces = list(iter_blocks(data, warnings=warnings, **options))
    return np.concatenate(pieces, axis=1), warnings


# ---- what stands behind the end of the header


@pytest.mark.parametrize("pieces", [2, 7])
def test_a_header_before_every_chunk_is_one_recording(pieces):
    parts = np.array_split(sound(1.0), pieces)
    got, warnings = read(b"".join(wav(p) for p in parts))
    np.testing.assert_allclose(got[0], sound(1.0) / 32768, atol=1e-6)
    assert warnings == []


def test_what_follows_the_first_flush_is_read_and_said():
    got, warnings = read(wav(sound(2.0), announced=16000))
    assert got.shape[1] == 2 * RATE
    assert len(warnings) == 1
    assert "48000 bytes behind what its header announces" in warnings[0]


def test_several_data_chunks_belong_together():
    samples = sound(2.0)
    whole = wav(samples[:RATE]) + b"data" + struct.pack("<I", 2 * RATE) + samples[RATE:].tobytes()
    got, warnings = read(whole)
    np.testing.assert_allclose(got[0], samples / 32768, atol=1e-6)
    assert warnings == []


@pytest.mark.parametrize(
    "end",
    [b"TAG" + bytes(125), bytes(5000), b"LIST" + struct.pack("<I", 2000) + b"x" * 2000, b"APETAGEX" + b"x" * 3000],
)
def test_tags_and_padding_are_no_sound_and_no_reason_to_warn(end):
    got, warnings = read(wav(sound(1.0)) + end)
    assert got.shape[1] == RATE
    assert warnings == []


def test_flac_files_one_behind_the_other():
    got, warnings = read(flac(sound(1.0)) + flac(sound(0.5, seed=1)))
    np.testing.assert_allclose(got[0, RATE:], sound(0.5, seed=1) / 32768, atol=1e-6)
    assert warnings == []


def test_flac_that_counts_too_few_samples_is_read_on():
    data = bytearray(flac(sound(10.0)))
    data[22:26] = struct.pack(">I", RATE)
    assert len(load_audio(bytes(data))) == 10 * RATE


@pytest.mark.parametrize(("container", "codec"), [("ogg", "libopus"), ("mp4", "aac"), ("matroska", "pcm_s16le")])
def test_links_of_other_rates_are_read(container, codec):
    first = muxed([sound(1.0, rate=48000)], container, codec, rate=48000)
    second = muxed([sound(1.0, rate=24000)], container, codec, rate=24000)
    got, _ = read(first + second)
    assert got.shape[1] == pytest.approx(2 * RATE, abs=0.1 * RATE)


def test_an_id3_tag_before_riff_is_passed_over():
    tag = b"ID3\x03\x00\x00" + bytes([0, 0, 1, 0]) + bytes(128)
    assert len(load_audio(tag + wav(sound(1.0)))) == RATE


def test_endless_headers_take_no_memory_and_an_end():
    data = wav(sound(0.01)) * 300
    assert len(load_audio(data)) == 300 * 160


# ---- time stamps


@pytest.mark.parametrize("factor", [0.97, 0.998, 1.002, 1.03])
def test_a_clock_that_runs_otherwise_is_followed(factor):
    samples = sound(20.0)
    samples[-RATE // 2 :] = 0
    samples[-RATE // 2 : -RATE // 2 + 400] = 30000
    got, warnings = read(muxed([samples], stamp=lambda _, s: s * factor))
    place = np.argmax(np.abs(got[0]) > 0.8) / RATE
    assert place == pytest.approx(19.5 * factor, abs=0.12)
    assert got.shape[1] / RATE == pytest.approx(20 * factor, abs=0.12)
    assert warnings == []


def frames(starts):
    from vermilion.audio.timeline import Piece

    return [Piece(s, float(RATE), np.full((320, 1), i + 1, np.float32)) for i, s in enumerate(starts)]


def placed(starts, container="matroska,webm"):
    from vermilion.audio.timeline import Timeline

    warnings = []
    blocks = list(Timeline(0.0, container, warnings.append).blocks(iter(frames(starts))))
    return np.concatenate([b for _, b in blocks])[:, 0], warnings


STEADY = [0.02 * i for i in range(300)]


@pytest.mark.parametrize("wild", [[100], [100, 101], [0], [299], [50, 150, 250]])
@pytest.mark.parametrize("off", [3600.0, -1.5])
def test_single_wild_stamps_are_not_believed(wild, off):
    starts = [s + off if i in wild else s for i, s in enumerate(STEADY)]
    got, warnings = placed(starts)
    assert len(got) == 300 * 320
    assert warnings == []


def test_stamps_that_stand_still_after_a_jump_are_not_believed():
    got, _ = placed([s if i < 100 else 3600.0 for i, s in enumerate(STEADY)])
    assert len(got) == 300 * 320


def test_a_confirmed_jump_is_silence_and_one_back_is_left_out():
    got, _ = placed([s + 5 * (i >= 100) for i, s in enumerate(STEADY)])
    assert len(got) == 300 * 320 + 5 * RATE
    assert not got[100 * 320 : 100 * 320 + 5 * RATE].any()
    got, warnings = placed([s - 1.0 * (i >= 100) for i, s in enumerate(STEADY)])
    assert len(got) == 300 * 320 - RATE
    assert got[100 * 320] == 151
    assert len(warnings) == 1


@pytest.mark.parametrize("container", ["aac", "mp3", "flac"])
def test_stamps_that_a_demuxer_made_up_are_not_followed(container):
    assert len(placed([2 * s for s in STEADY], container)[0]) == 300 * 320


def test_times_that_begin_anew_cost_nothing():
    assert len(placed([s - 2.0 * (i >= 100) for i, s in enumerate(STEADY)], "mpegts")[0]) == 300 * 320
    assert len(placed([s % 3 for s in STEADY], "mpegts")[0]) == 300 * 320


def test_raw_aac_whose_rate_rises_keeps_its_length():
    parts = [muxed([sound(2.0, rate=r)], "adts", "aac", rate=r) for r in (22050, 44100)]
    got, warnings = read(parts[0] + parts[1])
    assert got.shape[1] / RATE == pytest.approx(4.0, abs=0.3)
    assert warnings == []


# ---- streams


TWO = [sound(1.0), sound(1.0, seed=5)]


def test_the_default_stream_is_taken_and_others_can_be_chosen():
    data = muxed(TWO, default=1, languages=("eng", "ger"))
    for options, expected in (({}, 1), ({"stream": "1"}, 0), ({"stream": "2"}, 1), ({"stream": "en"}, 0)):
        got, _ = read(data, **options)
        np.testing.assert_allclose(got[0], TWO[expected] / 32768, atol=1e-4, err_msg=str(options))
    np.testing.assert_allclose(read(data, stream="deu")[0][0], TWO[1] / 32768, atol=1e-4)
    both, _ = read(data, stream="all")
    np.testing.assert_allclose(both, np.stack(TWO) / np.float32(32768), atol=1e-4)
    assert [r.channel for r in open_recordings(data, stream="all")] == [0, 1]


@pytest.mark.parametrize("stream", ["3", "fr"])
def test_a_stream_that_is_not_there_is_said(stream):
    with pytest.raises(AudioError, match=r"no audio stream .*1 \(eng\), 2 \(ger\)"):
        read(muxed(TWO, languages=("eng", "ger")), stream=stream)


@pytest.mark.parametrize("stream", ["0", "-1", "a b"])
def test_impossible_choices_are_refused(stream):
    with pytest.raises(OptionsError):
        read(wav(sound(0.1)), stream=stream)


def test_a_silent_stream_gives_way_to_the_next_one():
    got, warnings = read(muxed([np.zeros(RATE, np.int16), TWO[1]]))
    np.testing.assert_allclose(got[0], TWO[1] / 32768, atol=1e-4)
    assert any("stream 1 is silent; number 2" in w for w in warnings)
    late = TWO[0].copy()
    late[: RATE // 2] = 0
    got, warnings = read(muxed([late, TWO[1]]))
    np.testing.assert_allclose(got[0], late / 32768, atol=1e-4)
    assert not any("silent" in w for w in warnings)


# ---- channels and levels


@pytest.mark.parametrize("factor", [-1.0, -0.7])
def test_channels_that_cancel_each_other_out_are_not_mixed(factor):
    left = tone(3.0) * 0.3
    stereo = np.stack([left, factor * left], axis=1).astype(np.float32)
    stereo[: RATE // 2, 1] *= -1  # only a part of it
    warnings = []
    got = np.concatenate(list(iter_blocks((stereo, RATE), warnings=warnings)), axis=1)[0]
    assert np.sqrt((got**2).mean()) > 0.18
    assert "opposite phase" in warnings[0]


def test_one_channel_among_many_keeps_its_level_and_two_voices_their_mean():
    six = np.zeros((2 * RATE, 6), np.float32)
    six[:, 2] = tone(2.0) * 0.5
    assert np.abs(load_audio((six, RATE))[RATE:]).max() == pytest.approx(0.5, abs=0.01)
    two = np.stack([tone(2.0) * 0.5, tone(2.0, hertz=300) * 0.5], axis=1).astype(np.float32)
    np.testing.assert_allclose(load_audio((two, RATE)), two.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("decibels", [-43, -53])
def test_very_quiet_recordings_are_raised_and_say_so(decibels):
    syllables = np.repeat(np.tile([1.0, 0.0, 0.0], 7), len(tone(2.0)) // 21 + 1)[: len(tone(2.0))]
    samples = (tone(2.0) * syllables * 10 ** (decibels / 20) * 32768).round().astype(np.int16)
    got = raised(Recording("q", samples))
    assert 0.1 < np.abs(got.slice(0, 2)).max() <= 0.25
    assert "very quiet" in got.warnings[0]


def test_steady_noise_is_not_raised():
    hiss = Recording("h", np.random.default_rng(2).normal(0, 0.001, 32000).astype(np.float32))
    assert raised(hiss) is hiss


@pytest.mark.parametrize("peak", [0.0, 1e-4, 0.05, 0.9])
def test_normal_levels_and_nothing_stay_as_they_are(peak):
    recording = Recording("n", (tone(1.0) * peak).astype(np.float32))
    assert raised(recording) is recording
