"""Options that several commands share; their defaults are the library's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from vermilion.decoding.options import DecodingOptions, LlmOptions
from vermilion.formats import SubtitleOptions
from vermilion.nonspeech import OnNoise, OnSound
from vermilion.pipeline import PipelineOptions
from vermilion.vad import EventOptions, VadOptions
from vermilion.vad.options import PresetName

DEFAULTS = PipelineOptions()
CPU_WINDOW = 120.0
"""seconds of speech after which finished recordings are written: two full batches of the decoder"""

MODELS = Group.create_ordered("Models")
OUTPUT = Group.create_ordered("Output")
STAGES = Group.create_ordered("What is done")
SEARCH = Group.create_ordered("Search")
LLM = Group.create_ordered("FireRedASR2-LLM")
SUBTITLES = Group.create_ordered("Subtitles")
VAD = Group.create_ordered("Voice activity")
CORPUS = Group.create_ordered("Corpora (--manifest)")

Inputs = Annotated[
    list[str],
    Parameter(help="Recordings: files, folders (searched through), globs, or - for standard input."),
]
ModelsOption = Annotated[
    str,
    Parameter(
        name=["--models", "-m"],
        group=MODELS,
        help="auto = the best present; starter, mini, fireredasr2-aed, fireredasr2-llm, or a folder with models.",
    ),
]
Json = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, group=OUTPUT, help="One JSON object per line on stdout."),
]
Quiet = Annotated[
    bool,
    Parameter(
        name=["--quiet", "-q"],
        negative="",
        show_default=False,
        group=OUTPUT,
        help="Say nothing but results and errors.",
    ),
]
EventGroup = Annotated[EventOptions, Parameter(name="*", group=VAD)]
SubtitleGroup = Annotated[SubtitleOptions, Parameter(name="*", group=SUBTITLES)]


@Parameter(name="*", group=VAD)
@dataclass(frozen=True)
class Voice:
    """How speech is cut into segments; what is not given is the preset's."""

    vad_preset: PresetName = "default"
    """default = long segments, chosen by the words that come out; tight = fewest wrong frames, every pause is one;
    published = as the published library; cli = as the published command line."""
    speech_threshold: float | None = None
    """Smoothed probability from which a frame is speech."""
    smooth_window_size: int | None = None
    """Frames of the trailing mean."""
    min_speech_frame: int | None = None
    """Shorter speech is dropped."""
    max_speech_frame: int | None = None
    """Longer speech is cut at its least probable frame."""
    min_silence_frame: int | None = None
    """Shorter pauses stay speech."""
    merge_silence_frame: int | None = None
    """Gaps shorter than this are filled."""
    extend_speech_frame: int | None = None
    """Frames added on both sides."""
    min_piece_frame: int | None = None
    """Cuts leave no piece shorter than this."""
    chunk_max_frame: int | None = None
    """Frames computed at a time; bounds the memory and changes no result."""

    def plain(self) -> VadOptions:
        """The same as the library knows them."""
        given = {name: value for name, value in vars(self).items() if name != "vad_preset" and value is not None}
        return replace(VadOptions.preset(self.vad_preset), **given)


@Parameter(name="*", group=SEARCH)
@dataclass(frozen=True)
class Search(DecodingOptions):
    """The library's options of the search, without those that need an external language model."""

    search: Literal["beam", "greedy", "rescore", "ctc"] = "beam"
    """beam = the published search; greedy = one hypothesis, drafted by the CTC head: the same text as --beam-size 1
    in far fewer steps; rescore = the decoder chooses among the CTC head's texts; ctc = no decoder, fastest."""
    lm_weight: Annotated[float, Parameter(parse=False)] = 0.0

    def plain(self) -> DecodingOptions:
        """The same as the library knows them."""
        return DecodingOptions(**vars(self))


@Parameter(name="*", group=LLM)
@dataclass(frozen=True)
class Llm:
    """How --recognizer llm runs."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """transformers = here; vllm = by vLLM, on this machine's GPU or on a server."""
    vllm_url: str = ""
    """A vLLM server, such as http://127.0.0.1:8000; its key is read from VLLM_API_KEY."""
    llm_weights: Literal["full", "int8", "int4"] = "full"
    """Hold the language model's matrices in 8 or 4 bits (needs torchao)."""
    device_map: str = ""
    """Spread the language model over several GPUs: auto, balanced, sequential."""
    gpus: int = 1
    """GPUs that vLLM uses."""
    context: str = ""
    """Names and terms that may occur; the model was trained without, so compare before you rely on it."""

    def plain(self) -> LlmOptions:
        """The same as the library knows them."""
        return LlmOptions(self.engine, self.vllm_url, self.llm_weights, self.device_map, self.gpus, self.context)


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True)
class Hardware:
    """Where the networks run."""

    device: str = DEFAULTS.device
    """Torch device: cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = DEFAULTS.precision
    """Number format of the networks; auto = what the processor computes natively without a loss; int8 (CPU) is
    fastest and needs a quarter of the memory, its words can differ now and then."""
    threads: int = DEFAULTS.threads
    """Threads of the networks on a CPU; 0 = the cores that this process may use. On a busy machine fewer are faster."""
    calibration: bool = DEFAULTS.calibration
    """Calibrate confidences where `vermilion calibrate` has been run for the recogniser."""

    def apply(self, options: PipelineOptions = DEFAULTS) -> PipelineOptions:
        """Put device and precision into pipeline options."""
        # a slow machine hands finished recordings over sooner: less is lost when a run is interrupted
        window = CPU_WINDOW if self.device == "cpu" else options.window_seconds
        return replace(
            options,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            calibration=self.calibration,
            window_seconds=window,
        )

    def __str__(self) -> str:
        """How messages call it; the starter set chooses its own precision, so the default is not claimed."""
        return self.device if self.precision == DEFAULTS.precision else f"{self.device}, {self.precision}"


@Parameter(name="*", group=STAGES)
@dataclass(frozen=True)
class Stages:
    """What the pipeline does."""

    recognizer: Literal["auto", "aed", "llm", "whisper"] = DEFAULTS.recognizer
    """Which recogniser; auto = FireRedASR2-AED if it is present, else Whisper out of the starter set."""
    language: str | None = DEFAULTS.language
    """Language of all recordings, such as en or "zh mandarin"; not identified then."""
    channels: Literal["mix", "separate"] = DEFAULTS.channels
    """mix = one transcript; separate = each channel transcribed and labelled."""
    stream: str = DEFAULTS.stream
    """Audio stream of a file with several: its number from 1, its language (en), or all (each one a channel).
    [default: the one that players take; the next one where it holds no speech]"""
    vad: bool = DEFAULTS.vad
    """Find the speech first."""
    events: bool = DEFAULTS.events
    """Label speech, singing and music."""
    lid: bool = DEFAULTS.lid
    """Identify languages."""
    punctuation: bool = DEFAULTS.punctuation
    """Restore punctuation and casing."""
    punc_max_length: int = -1
    """Cut sentences beyond this length (Chinese characters; Latin letters count half); -1 = no limit."""
    route: Literal["auto", "never"] = DEFAULTS.route
    """auto = languages that the recogniser does not cover go to Whisper, if it is installed."""
    word_edges: Literal["sound", "model"] = DEFAULTS.word_edges
    """sound = word times that lie in a pause move to the sound beside it; model = as the recogniser gives them."""
    raise_quiet: bool = DEFAULTS.raise_quiet
    """Raise the level of very quiet speech."""
    max_seconds: float | None = DEFAULTS.max_seconds
    """Refuse longer recordings."""

    def pipeline_options(self, search: Search, hardware: Hardware, llm: Llm) -> PipelineOptions:
        """Put everything into the library's options."""
        options = PipelineOptions(
            recognizer=self.recognizer,
            language=self.language,
            channels=self.channels,
            stream=self.stream,
            vad=self.vad,
            events=self.events,
            lid=self.lid,
            punctuation=self.punctuation,
            route=self.route,
            word_edges=self.word_edges,
            raise_quiet=self.raise_quiet,
            max_seconds=self.max_seconds,
            decoding=search.plain(),
            llm=llm.plain(),
        )
        return hardware.apply(options)


@Parameter(name="*", group=STAGES)
@dataclass(frozen=True)
class Sounds:
    """What becomes of segments in which nobody speaks."""

    on_music: OnSound = DEFAULTS.on_music
    """Music without speech: keep = recognise it as if it were speech; mark = drop text that the recogniser itself
    doubts, flag other text over music; drop = no words."""
    on_singing: OnSound = DEFAULTS.on_singing
    """The same for singing."""
    on_noise: OnNoise = DEFAULTS.on_noise
    """Other segments that seem to hold no speech: keep their text, or drop what the recogniser itself doubts."""

    def apply(self, options: PipelineOptions) -> PipelineOptions:
        """Put them into pipeline options."""
        return replace(options, on_music=self.on_music, on_singing=self.on_singing, on_noise=self.on_noise)


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True)
class Output:
    """Where results go."""

    output_dir: Annotated[Path | None, Parameter(name=["--output-dir", "-o"])] = None
    """Folder for the outputs; without it the transcript is printed."""
    format: Annotated[list[str] | None, Parameter(name=["--format", "-f"])] = None
    """Format of the outputs; may be repeated, or separated by commas. [default: srt and json]"""
    visualize: Literal["png", "html"] | None = None
    """Draw a timeline beside the outputs (png unless html is given)."""
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Redo recordings whose outputs are there already."""


@Parameter(name="*", group=CORPUS)
@dataclass(frozen=True)
class Corpus:
    """Corpora out of a manifest."""

    manifest: Path | None = None
    """JSON lines {"audio_filepath": ..., "id": ..., "offset": ..., "duration": ...}, a Kaldi folder or wav.scp; needs
    --output-dir. Rows go to parts/, what failed to failures.jsonl; the same command goes on after any end."""
    workers: int = 0
    """Processes, each with the models; 0 = one per GPU, or one on a CPU (all its threads). On Ray the most actors, of
    which it starts as many as the work needs; 0 = as many as the cluster has room for."""
    worker_memory: float = 0.0
    """GB of address space that a worker may take, on a CPU; 0 = no limit. A segment that needs more fails."""
    rows_per_part: int = 1000
    """Rows of a part of the output."""
    chunk: int = 16
    """Recordings that a worker takes at once; their segments share batches."""
    patience: float = 1800.0
    """Seconds without a sign of life after which a worker is ended."""
    redact_paths: bool = False
    """Write hashes instead of paths, everywhere in the output."""
    retry_failures: bool = False
    """Try again what failed in an earlier run."""
    engine: Literal["local", "ray"] = "local"
    """local = processes of this machine; ray = Ray Data (extra ray)."""
    address: str = ""
    """Ray cluster to use, such as auto or 10.0.0.5:6379; empty = a local one."""
    gpu_share: float = 1.0
    """GPUs of an actor on Ray, with --device cuda: 0.5 = two actors share one."""
