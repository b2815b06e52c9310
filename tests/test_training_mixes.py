"""Mixes: labels follow the timeline exactly, and everything is decided by (seed, epoch, index)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vermilion.audio.features import num_frames
from vermilion.errors import ManifestError, OptionsError, TrainingError
from vermilion.manifests import Utterance, write_manifest
from vermilion.training.augment import AugmentOptions
from vermilion.training.mixes import MixAugmentOptions, Mixer, MixOptions, Sources, read_sources
from vermilion.training.reading import read_stretch
from vermilion.training.singing import sing
from vermilion.training.stretches import TrimOptions, frame_labels, given_stretches, sounding

RATE = 16000
PLAIN = MixOptions(seconds=3, speech=1, singing=0, music=0, noise=0, overlap=0, gap_seconds=(0.3, 0.6))
UNCHANGED = AugmentOptions(speeds=(1.0,), volume=0, reverb=0, noise=0, codec=0, low_pass=0, clip=0)


def buzz(seconds: float, pitch: float = 150.0) -> np.ndarray:
    """Something like a vowel."""
    time = np.arange(round(seconds * RATE)) / RATE
    parts = [np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20)]
    return (0.2 * np.sum(parts, axis=0)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def write(folder: Path, name: str, samples: np.ndarray, **more) -> Utterance:
    place = folder / f"{name}.wav"
    soundfile.write(place, samples, RATE)
    return Utterance(name, str(place), duration=len(samples) / RATE, **more)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Sources:
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    clip = np.concatenate([silence(0.3), buzz(0.5), silence(0.4), buzz(0.3, 220), silence(0.2)])
    long = np.concatenate([buzz(1.0, f) for f in rng.uniform(200, 500, 25)])
    return Sources(
        speech=[write(folder, "a", clip), write(folder, "b", np.concatenate([silence(0.1), buzz(0.6, 180)]))],
        music=[write(folder, "m", long)],
        noise=[write(folder, "n", rng.normal(0, 0.1, RATE).astype(np.float32))],
    )


def test_the_sound_of_a_clip_is_found_to_a_hundredth_of_a_second():
    clip = np.concatenate([silence(0.3), buzz(0.5), silence(0.4), buzz(0.3), silence(0.2)])
    clip += np.random.default_rng(0).normal(0, 3e-4, len(clip)).astype(np.float32)
    found = sounding(clip, TrimOptions(margin_seconds=0))
    assert np.allclose(np.array(found) / RATE, [[0.3, 0.8], [1.2, 1.5]], atol=0.011)


def test_short_pauses_count_and_short_bursts_do_not():
    clip = np.concatenate([silence(0.3), buzz(0.5), silence(0.1), buzz(0.5), silence(0.5), buzz(0.03), silence(0.3)])
    assert len(sounding(clip)) == 1
    assert len(sounding(clip, TrimOptions(gap_seconds=0.05, shortest_seconds=0.0))) == 3
    assert sounding(silence(1.0)) == []
    assert sounding(silence(0.005)) == []


def test_labels_of_frames_are_those_of_the_middle_of_their_window():
    # frame t sees samples 160 t to 160 t + 400; its middle 10 ms are 160 t + 120 to 160 t + 280
    labels = frame_labels([(160 * 10 + 120, 160 * 20 + 120)], RATE)
    assert labels.shape == (num_frames(RATE),)
    assert np.flatnonzero(labels).tolist() == list(range(10, 20))
    assert np.flatnonzero(frame_labels([(160 * 10 + 200, 160 * 20 + 39)], RATE)).tolist() == list(range(10, 19))
    assert frame_labels([(-500, 10**9)], RATE).all()


def test_segments_of_a_manifest_are_taken_as_they_are():
    line = Utterance("x", "x.wav", extra={"segments": [[0.5, 0.75], [0.1, 0.2], [0.9, 7.0]]})
    assert given_stretches(line, RATE) == [(1600, 3200), (8000, 12000), (14400, 16000)]
    assert given_stretches(Utterance("x", "x.wav"), RATE) is None
    with pytest.raises(ManifestError, match="segments"):
        given_stretches(Utterance("x", "x.wav", extra={"segments": [1, 2]}), RATE)


def test_the_labels_of_a_mix_are_where_its_clips_sound(sources):
    mixer = Mixer(sources, PLAIN, UNCHANGED, TrimOptions(margin_seconds=0, gap_seconds=0.15))
    known = {"a": [(0.3, 0.8), (1.2, 1.5)], "b": [(0.1, 0.7)]}
    for index in range(5):
        mix = mixer(0, index)
        expected = np.zeros(len(mix.samples), dtype=bool)
        for sound in mix.placed:
            for start, end in known[sound.id]:
                first, last = (sound.start + round(t * RATE) for t in (start, end))
                expected[max(0, first) : max(0, last)] = True
        middle = np.arange(num_frames(len(mix.samples))) * 160 + 200
        wrong = mix.labels([["speech"]])[:, 0] != expected[middle]
        # a step of 10 ms of the rule starts with the clip: edges may be off by one step
        edges = np.flatnonzero(np.diff(expected)) // 160
        assert all(np.abs(edges - (t + 1)).min() <= 2 for t in np.flatnonzero(wrong))
        assert expected[middle].any()
        steps = np.abs(mix.samples.reshape(-1, 160)).max(axis=1)
        whole, some = (f(expected.reshape(-1, 160), axis=1) for f in (np.all, np.any))
        assert steps[whole].min() > 5 * steps[~some].max()  # the samples are where the timeline says


def test_a_given_timeline_is_followed_to_the_sample(tmp_path):
    line = write(tmp_path, "x", buzz(1.0), extra={"segments": [[0.25, 0.5]]})
    mixer = Mixer(Sources(speech=[line]), PLAIN, replace(UNCHANGED, speeds=(0.8,)))
    mix = mixer(0, 0)
    for sound in mix.placed:
        for first, last in sound.stretches:
            if first > 0 and last < len(mix.samples):
                assert (first - sound.start, last - sound.start) == (round(4000 / 0.8), round(8000 / 0.8))
    assert any(sound.stretches for sound in mix.placed)


def test_music_under_speech_has_its_level_and_its_label(sources):
    options = replace(PLAIN, music=1, music_snr_db=(10, 10), level_db=(-20, -20))
    mixer = Mixer(sources, options, UNCHANGED)
    mix = next(m for m in (mixer(0, i) for i in range(20)) if m.placed[-1].stretches == [(0, len(m.samples))])
    labels = mix.labels([["speech"], ["singing"], ["music"]])
    assert labels.shape == (num_frames(len(mix.samples)), 3)
    assert labels[:, 2].all()
    assert not labels[:, 1].any()
    assert 0 < labels[:, 0].mean() < 1
    alone = mix.samples[: len(labels) * 160].reshape(-1, 160)[2:][labels[:-2, 0] + labels[2:, 0] == 0]
    level = 10 * np.log10(np.mean(alone[len(alone) // 4 :] ** 2))
    assert abs(level + 30) < 1.5


def test_a_mix_is_decided_by_seed_epoch_and_index(sources):
    options = MixOptions(seconds=2, music=0.5, noise=0.5, singing=0.3)
    mixer, same, other = (Mixer(sources, options, seed=seed) for seed in (1, 1, 2))
    mixer(0, 3)  # what was made before does not matter
    one, again = mixer(2, 7), same(2, 7)
    assert np.array_equal(one.samples, again.samples)
    assert one.placed == again.placed
    assert not np.array_equal(one.samples, other(2, 7).samples)
    assert not np.array_equal(one.samples, mixer(2, 8).samples)
    assert not np.array_equal(one.samples, mixer(3, 7).samples)
    for index in range(10):
        samples = mixer(0, index).samples
        assert len(samples) == 2 * RATE
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 1


def test_a_stretch_of_a_long_recording_is_read_where_it_says(sources, tmp_path):
    music = sources.music[0]
    whole = music.load()
    part, first = read_stretch(music, RATE, np.random.default_rng(0))
    assert np.abs(part - whole[first : first + RATE]).max() < 1e-6
    inner = replace(music, offset=2.0, duration=21.0)
    part, first = read_stretch(inner, RATE, np.random.default_rng(1))
    assert np.abs(part - whole[2 * RATE + first : 3 * RATE + first]).max() < 1e-6
    short, first = read_stretch(sources.speech[1], RATE, np.random.default_rng(0))
    assert (len(short), first) == (round(0.7 * RATE), 0)


def test_sets_do_not_leak(tmp_path):
    named = [write(tmp_path, f"{s}{i}", buzz(0.1), extra={"set": s}) for s in ("train", "dev", "test") for i in (0, 1)]
    free = [write(tmp_path, f"free{i}", buzz(0.1)) for i in range(40)]
    write_manifest(tmp_path / "named.jsonl", named)
    write_manifest(tmp_path / "free.jsonl", free)
    manifests = {"speech": [tmp_path / "named.jsonl", tmp_path / "free.jsonl"], "noise": []}
    train, dev = ({u.id for u in read_sources(manifests, part).speech} for part in ("train", "dev"))
    assert not train & dev
    assert {"train0", "train1"} < train
    assert {"dev0", "dev1"} < dev
    assert not {"test0", "test1"} & (train | dev)
    assert len(train | dev) == 44
    assert len(dev) == 4


def test_singing_holds_notes_of_a_scale():
    speech = np.concatenate([silence(0.2), buzz(0.25, 130), silence(0.15), buzz(0.25, 160), silence(0.2)])
    sung = sing(speech, np.random.default_rng(5))
    assert np.array_equal(sung, sing(speech, np.random.default_rng(5)))
    assert np.isfinite(sung).all()
    found = sounding(sung, TrimOptions(gap_seconds=0.06))
    assert len(found) >= 2
    assert len(sung) > len(speech)
    # periodic in the middle of its longest note, at a pitch that the speech does not have
    first, last = max(found, key=lambda s: s[1] - s[0])
    middle = sung[(first + last) // 2 - 800 : (first + last) // 2 + 800]
    lags = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    best = 40 + int(np.argmax(lags[40:400]))
    assert lags[best] > 0.5 * lags[0]
    assert len(sing(silence(0.01), np.random.default_rng(0))) == 160


def test_what_cannot_be_mixed_is_said(sources):
    with pytest.raises(TrainingError, match="no recordings of noise"):
        Mixer(Sources(speech=sources.speech), replace(PLAIN, noise=0.5))
    with pytest.raises(TrainingError, match="singing"):
        Mixer(Sources(music=sources.music), replace(PLAIN, speech=0, singing=1))
    for wrong in ({"speech": 1.5}, {"seconds": 0.1}, {"gap_seconds": (3, 1)}, {"gap_seconds": (0, 1)}):
        with pytest.raises(OptionsError):
            MixOptions(**wrong)
    assert MixAugmentOptions().noise == 0
