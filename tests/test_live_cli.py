"""`vermilion live`: sources, what it prints, files that grow."""

import io
import json
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
from test_live import Counting, LoudnessDetector, talk

from vermilion import Pipeline, PipelineOptions
from vermilion.cli import main
from vermilion.errors import AudioError, FormatError, MissingDependencyError, OptionsError
from vermilion.formats import read
from vermilion.live import Final, LiveTranscriber
from vermilion.live.captions import CaptionFile
from vermilion.live.sources import microphone, paced, raw_stream
from vermilion.transcript import Sentence, Word

TALK = talk(0.5, 1.6, 0.9, 1.1, 0.9)


@pytest.fixture
def fake(monkeypatch):
    """Models that write a word per half second; keeps how they were asked for."""
    asked = SimpleNamespace(recognizer=Counting())

    def load(name, *, options, background):
        asked.name, asked.options, asked.background = name, options, background
        pipeline = Pipeline(None, None, asked.recognizer, None, PipelineOptions(vad=False))
        return LiveTranscriber(pipeline, LoudnessDetector(), background=background)

    monkeypatch.setattr("vermilion.live.load_live", load)
    return asked


@pytest.fixture
def recording(tmp_path):
    soundfile.write(tmp_path / "talk.wav", TALK, 16000)
    return tmp_path / "talk.wav"


def test_finals_are_lines_with_their_times(fake, recording, capsys):
    assert main(["live", str(recording), "--pace", "0", "--language", "en", "--recognizer", "whisper"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split("] ")[1] for line in lines] == ["w0 w1 w2 w3", "w0 w1 w2"]
    assert lines[0].startswith("[00:00.5]")
    assert "2 utterances in 00:05.0" in err
    assert "models: vad loudness" in err
    assert (fake.background, fake.options.language, fake.options.recognizer) == (False, "en", "whisper")


def test_every_event_as_json(fake, recording, capsys):
    assert main(["live", str(recording), "--pace", "0", "--jsonl", "--quiet"]) == 0
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [e["type"] for e in events]
    assert kinds[0] == "SpeechStarted"
    assert kinds.count("Final") == kinds.count("SpeechEnded") == 2
    assert "Partial" in kinds
    assert err == ""


def test_raw_samples_on_standard_input(fake, capsys, monkeypatch):
    data = (np.repeat(TALK[:, None], 2, axis=1) * 32767).astype("<i2").tobytes() + b"\x01"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert main(["live", "-", "--channels", "2"]) == 0
    assert "w0 w1 w2" in capsys.readouterr().out


def test_files_grow_as_it_goes(fake, recording, tmp_path, capsys):
    files = [tmp_path / f"out.{kind}" for kind in ("srt", "vtt", "txt", "jsonl")]
    assert main(["live", str(recording), "--pace", "0", *(a for f in files for a in ("-o", str(f)))]) == 0
    for file in files[:2]:
        assert [e.text for e in read(file)] == ["w0 w1 w2 w3", "w0 w1 w2"]
    assert files[2].read_text(encoding="utf8") == "w0 w1 w2 w3\nw0 w1 w2\n"
    rows = [json.loads(line) for line in files[3].read_text(encoding="utf8").splitlines()]
    assert [r["utterance"] for r in rows] == [1, 2]


def test_captions_are_complete_after_every_utterance(tmp_path):
    words = [Word("hello", 1.0, 1.4), Word("there", 1.5, 2.0)]
    with CaptionFile(tmp_path / "a.srt") as file:
        file.write(Final(1, 1.0, 2.0, "hello there", [Sentence("hello there", 1.0, 2.0, words)]))
        assert [e.text for e in read(tmp_path / "a.srt")] == ["hello there"]
        file.write(Final(2, 3.0, 4.0, "", failure="x"))
        file.write(Final(3, 5.0, 6.0, "again", [Sentence("again", 5.0, 6.0)]))
    text = (tmp_path / "a.srt").read_text(encoding="utf8")
    assert [e.text for e in read(tmp_path / "a.srt")] == ["hello there", "again"]
    assert text.startswith("1\n00:00:01,000 --> ")
    assert "\n\n2\n00:00:05,000 --> " in text
    for wrong in (tmp_path / "a.json", tmp_path / "none" / "a.srt"):
        with pytest.raises(FormatError):
            CaptionFile(wrong)


def test_failures_are_told_and_the_code_is_1(fake, recording, capsys):
    fake.recognizer.fail = True
    assert main(["live", str(recording), "--pace", "0"]) == 1
    assert "no memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--pace", "-1"], 2),
        (["--silence-ms", "1"], 2),
        (["-o", "x.json"], 2),
        (["--nonsense"], 2),
    ],
)
def test_wrong_usage(fake, recording, capsys, arguments, code):
    assert main(["live", str(recording), *arguments]) == code
    assert capsys.readouterr().err.startswith("error: ")


def test_a_missing_recording_is_wrong_usage(fake, tmp_path, capsys):
    assert main(["live", str(tmp_path / "none.wav"), "--pace", "0"]) == 2
    assert "none.wav" in capsys.readouterr().err


def test_ctrl_c_finishes_what_was_said(fake, capsys, monkeypatch):
    def interrupted(*_):
        yield TALK[:24000], 16000
        raise KeyboardInterrupt

    monkeypatch.setattr("vermilion.cli.live.microphone", interrupted)
    assert main(["live"]) == 0
    assert "w0 w1" in capsys.readouterr().out
    assert fake.background


# ---- sources


class Sound(ModuleType):
    """The part of `sounddevice` that is used."""

    class PortAudioError(Exception):
        pass

    def query_devices(self, device, kind):
        if device == "absent":
            raise ValueError("no such device")
        return {"default_samplerate": 8000.0}

    class InputStream:
        def __init__(self, callback, **settings):
            self.callback, self.settings = callback, settings

        def __enter__(self):
            for i in range(3):
                self.callback(np.full((800, 1), i, np.int16), 800, None, None)

        def __exit__(self, *_):
            pass


def test_the_microphone(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", Sound("sounddevice"))
    chunks = microphone()
    found = [next(chunks) for _ in range(4)]
    assert [rate for _, rate in found] == [8000] * 4
    assert [int(samples[0, 0]) for samples, _ in found[:3]] == [0, 1, 2]
    assert found[3][0].shape == (0, 1), "nothing new: the caller may look for results"
    chunks.close()
    with pytest.raises(AudioError, match="no such device"):
        next(microphone("absent"))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingDependencyError, match=r"vermilion\[mic\]"):
        next(microphone())


def test_a_recording_at_its_own_pace(recording):
    began = time.monotonic()
    chunks = list(paced(recording, 20.0))
    assert time.monotonic() - began >= len(TALK) / 16000 / 20 * 0.9
    assert np.concatenate([c for c, _ in chunks]) == pytest.approx(TALK, abs=1e-3)
    with pytest.raises(OptionsError):
        next(paced(recording, -1.0))


def test_raw_streams_of_any_cut():
    class Dribble:
        def __init__(self, data):
            self.data = data

        def read(self, size):
            piece, self.data = self.data[:7], self.data[7:]
            return piece

    samples = np.arange(100, dtype="<i2")
    found = np.concatenate([c[:, 0] for c, _ in raw_stream(Dribble(samples.tobytes()))])
    assert found.tolist() == list(range(100))
    with pytest.raises(OptionsError):
        next(raw_stream(io.BytesIO(b""), rate=1))
