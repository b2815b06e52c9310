"""Says of a model folder what it is, what is wrong with it, and whether it will run, without loading its weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from vermilion.audio.cmvn import read_cmvn
from vermilion.checkpoints import catalogue, shapes
from vermilion.checkpoints.catalogue import KNOWN, ModelEntry
from vermilion.checkpoints.layout import (
    decoder_layout,
    detector_layout,
    encoder_layout,
    layer_count,
    whole,
    whole_number,
)
from vermilion.checkpoints.reader import (
    PUBLISHED_NAME,
    Checkpoint,
    key_problems,
    read_checkpoint,
    read_dictionary,
    read_settings,
    read_text,
    require_file,
    without_constants,
)
from vermilion.checkpoints.shapes import Shapes
from vermilion.errors import CheckpointError, VermilionError

BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.05}
"""of a weight in each precision"""
LARGEST_HASHED = 16 << 20
"""files above this are known by their size alone: reading gigabytes takes minutes"""
_QWEN = "Qwen2-7B-Instruct"
_KINDS_BY_KEY = {
    "lid_decoder.": "FireRedLID",
    "encoder_projector.": "FireRedASR2-LLM",
    "decoder.": "FireRedASR2-AED",
    "bert.": "FireRedPunc",
}
_LM = ModelEntry("LSTM-LM", "lm", "LSTM-LM", "external language model of a recogniser", required=("model.pth.tar",))
ReleaseState = Literal["release", "other"]


@dataclass(frozen=True)
class FileReport:
    """A file of a model folder."""

    name: str
    size: int
    """bytes"""
    release: ReleaseState | None
    """"release" = size and known hash are those of the published file; None = nothing is known to compare with"""


@dataclass(frozen=True)
class ModelReport:
    """What is known of a model folder."""

    folder: Path
    model: str
    """name in the catalogue; empty = not one of ours"""
    sizes: dict[str, Any] = field(default_factory=dict)
    """layers, widths, vocabulary … by the names of the hyper-parameters"""
    parameters: int = 0
    """weights that the networks use"""
    files: list[FileReport] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """unusual, but it runs"""
    problems: list[str] = field(default_factory=list)
    """why it will not run"""
    memory: dict[str, int] = field(default_factory=dict)
    """bytes of the weights by precision; empty where it will not run"""

    @property
    def runs(self) -> bool:
        """Whether it will load and run."""
        return bool(self.model) and not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "folder": str(self.folder),
            "model": self.model or None,
            "runs": self.runs,
            "parameters": self.parameters,
            "sizes": self.sizes,
            "files": [{"name": f.name, "bytes": f.size, "release": f.release} for f in self.files],
            "remarks": self.remarks,
            "problems": self.problems,
            "memory_bytes": self.memory,
        }


def inspect(folder: str | Path) -> list[ModelReport]:
    """Look at a model folder, or at every model of a models directory.

    Args:
        folder: in the published layout.

    Returns:
        One report per model, in the order of their names; a folder that holds none of ours gets one that says so.

    Raises:
        CheckpointError: there is no such folder, or it cannot be read.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = "a file" if root.exists() else "not there"
        raise CheckpointError(f"{root} is {what}: name a model folder, or a folder of them")
    try:
        found = [root] if _is_model(root) else sorted(path for path in _below(root) if _is_model(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {root}: {error.strerror or error}") from error
    return [inspect_model(path) for path in found or [root]]


def inspect_model(folder: Path) -> ModelReport:
    """Look at one model folder; whatever is wrong with it stands in the report."""
    known = _named(folder)
    report = ModelReport(folder, known.name if known else "")
    try:
        report = replace(report, files=_files(folder, known))
        checkpoint = read_checkpoint(folder)
        if known is None and (known := _by_keys(checkpoint)) is not None:
            report = replace(report, model=known.name, files=_files(folder, known))
        if known is None:
            return replace(report, problems=["its weights are those of no model that Vermilion knows"])
        return _examined(report, checkpoint, known)
    except VermilionError as error:
        return replace(report, problems=[str(error)])
    except OSError as error:
        return replace(report, problems=[f"cannot read {error.filename or folder}: {error.strerror or error}"])


def _below(root: Path) -> Iterator[Path]:
    """Folders at most two levels down, as models lie in a models directory (FireRedVAD holds three)."""
    for child in root.iterdir():
        if child.is_dir() and not child.name.startswith("."):
            yield child
            yield from (path for path in child.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_model(folder: Path) -> bool:
    weights = ("model.pth.tar", "model.safetensors", "asr_encoder.pth.tar")
    is_hugging_face = (folder / "config.json").exists()
    return not is_hugging_face and any((folder / name).exists() for name in (*weights, catalogue.KIND_FILE))


def _named(folder: Path) -> ModelEntry | None:
    return next((e for e in KNOWN if not e.packages and catalogue.is_named(folder, e)), None)


def _by_keys(checkpoint: Checkpoint) -> ModelEntry | None:
    for prefix, name in _KINDS_BY_KEY.items():
        if any(key.startswith(prefix) for key in checkpoint.state):
            return catalogue.entry(name)
    if any(key.startswith("lstm.") for key in checkpoint.state):
        return _LM
    if not any(key.startswith("dfsmn.") for key in checkpoint.state):
        return None
    if checkpoint.args.get("odim") == 3:
        return catalogue.entry("FireRedVAD-events")
    return catalogue.entry("FireRedVAD-stream" if checkpoint.args.get("N2") == 0 else "FireRedVAD")


def _examined(report: ModelReport, checkpoint: Checkpoint, known: ModelEntry) -> ModelReport:
    problems = [f"{name} is missing" for name in catalogue.missing_files(report.folder, known)]
    found = _EXAMINERS[known.kind if known.name != "FireRedASR2-LLM" else "llm"](report.folder, checkpoint)
    wrong = key_problems(found.shapes, {k: tuple(v.shape) for k, v in found.state.items()})
    problems += [f"the weights do not fit: {'; '.join(wrong)}"] if wrong else []
    problems += found.problems + _statistics_problems(report.folder, known)
    parameters = sum(math.prod(shape) for shape in found.shapes.values()) + found.more_parameters
    memory = {} if problems else {name: int(size * parameters) for name, size in BYTES.items()}
    return replace(
        report,
        sizes=found.sizes,
        parameters=parameters,
        remarks=[*checkpoint.remarks, *found.remarks, *_release_remarks(report)],
        problems=problems,
        memory=memory,
    )


@dataclass(frozen=True)
class _Found:
    """What an examiner found in a model."""

    sizes: dict[str, Any]
    shapes: Shapes
    """what our networks ask for"""
    state: Mapping[str, Any]
    """what the file holds"""
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    more_parameters: int = 0
    """of parts that are not in the file"""


def _sequence(folder: Path, checkpoint: Checkpoint, prefix: str) -> _Found:
    encoder, decoder = encoder_layout(checkpoint), decoder_layout(checkpoint, prefix)
    expected = shapes.encoder_shapes(checkpoint) | shapes.decoder_shapes(checkpoint, prefix)
    if prefix == "decoder.":
        expected |= shapes.ctc_shapes(checkpoint)
    spare = f"{prefix}tgt_word_prj.weight"
    state = {k: v for k, v in without_constants(checkpoint.state).items() if k != spare}
    problems = _tried(lambda: read_dictionary(folder / "dict.txt", decoder.sizes["vocabulary"]))
    remarks = [*encoder.remarks, *decoder.remarks]
    if prefix == "decoder." and not any(key.startswith("ctc.") for key in expected):
        remarks.append("it has no CTC head: words get evenly spread times, and only beam and greedy search work")
    return _Found({**encoder.sizes, **decoder.sizes}, expected, state, remarks, problems)


def _recogniser(folder: Path, checkpoint: Checkpoint) -> _Found:
    return _sequence(folder, checkpoint, "decoder.")


def _identifier(folder: Path, checkpoint: Checkpoint) -> _Found:
    return _sequence(folder, checkpoint, "lid_decoder.")


def _language_model(folder: Path, checkpoint: Checkpoint) -> _Found:
    sizes = {name: whole_number(checkpoint, name) for name in ("odim", "embedding_dim", "num_layers")}
    if min(sizes.values()) < 1 or sizes["num_layers"] > len(checkpoint.state):
        raise CheckpointError(f"{checkpoint.path} has impossible sizes: {sizes}")
    state = dict(checkpoint.state)
    if checkpoint.args.get("tie_weights") and "embedding.weight" in state:
        state.setdefault("fc.weight", state["embedding.weight"])
    remarks = ["it scores the tokens of one recogniser: pass it as lm_dir"]
    return _Found(sizes, shapes.language_model_shapes(*sizes.values()), state, remarks)


def _detector(folder: Path, checkpoint: Checkpoint) -> _Found:
    layout = detector_layout(checkpoint)
    return _Found(layout.sizes, shapes.detector_shapes(checkpoint), checkpoint.state, list(layout.remarks))


def _restorer(folder: Path, checkpoint: Checkpoint) -> _Found:
    bert, labels = read_settings(folder / "chinese-lert-base" / "config.json"), whole_number(checkpoint, "odim")
    sizes = {name: shapes.positive(bert, name) for name in ("num_hidden_layers", "hidden_size", "vocab_size")}
    held = layer_count(checkpoint.state, "bert.encoder.layer.")
    if sizes["num_hidden_layers"] != held:
        raise CheckpointError(f"config.json speaks of {sizes['num_hidden_layers']} layers, the file holds {held}")
    marks = read_dictionary(folder / "out_dict", labels)
    words = read_dictionary(folder / "chinese-bert-wwm-ext_vocab.txt")
    read_text(folder / "chinese-lert-base" / "vocab.txt")
    if (folder / "chinese-lert-base" / "tokenizer_config.json").exists():
        read_settings(folder / "chinese-lert-base" / "tokenizer_config.json")
    shapes.check_punctuation(
        folder, shapes.bert_config(bert, labels), marks, len(words), whole_number(checkpoint, "cls_id")
    )
    state = without_constants(checkpoint.state)
    return _Found({**sizes, "odim": labels}, shapes.punctuation_shapes(bert, labels), state)


def _large_recogniser(folder: Path, own: Checkpoint) -> _Found:
    first = read_checkpoint(folder, "asr_encoder.pth.tar")
    encoder = Checkpoint(own.path, first.args, {**first.state, **own.state})
    layout, qwen = encoder_layout(encoder), read_settings(folder / _QWEN / "config.json")
    held, parameters = _language_model_shapes(folder / _QWEN)
    width, layers = shapes.positive(qwen, "hidden_size"), layer_count(held, "model.layers.")
    wanted = shapes.qwen_shapes(qwen, layers)
    rate = whole(own.args.get("encoder_downsample_rate", 2), "the hyper-parameter encoder_downsample_rate")
    expected = shapes.encoder_shapes(encoder) | shapes.adapter_shapes(layout.sizes["d_model"], width, rate)
    state = {k: v for k, v in without_constants(encoder.state).items() if not k.startswith("llm.")}
    lora = {k: tuple(v.shape) for k, v in own.state.items() if k.startswith("llm.")}
    problems = [f"{_QWEN}: {problem}" for problem in key_problems(wanted, held)] + _lora_problems(lora, wanted)
    if shapes.positive(qwen, "num_hidden_layers") != layers:
        problems.append(f"{_QWEN}/config.json speaks of {qwen['num_hidden_layers']} layers, its files hold {layers}")
    problems += _tried(lambda: _check_tokenizer(folder / _QWEN / "tokenizer.json"))
    remarks = [*layout.remarks, "word times need FireRedASR2-AED beside it, whose encoder takes memory of its own"]
    remarks += (
        [] if lora or not own.args.get("use_lora") else ["its args speak of LoRA weights, which it does not hold"]
    )
    sizes = {**layout.sizes, "qwen_layers": layers, "qwen_width": width, "lora": len(lora) // 2}
    return _Found(sizes, expected, state, remarks, problems, parameters)


def _language_model_shapes(folder: Path) -> tuple[Shapes, int]:
    """Keys and shapes that the headers of safetensors files name, and the number of weights."""
    from safetensors import SafetensorError, safe_open

    found: Shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(require_file(path), framework="pt") as file:
                found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: {error}; fetch it again") from error
    return found, sum(math.prod(shape) for shape in found.values())


def _lora_problems(lora: Shapes, layers: Shapes) -> list[str]:
    """In what the LoRA weights do not fit the layers that they are added to."""
    names = {key.removesuffix(".default.weight").rpartition(".")[0] for key in lora}
    wrong = [name for name in sorted(names) if not _lora_fits(name, lora, layers)]
    return [f"the LoRA weights of {', '.join(wrong[:4])} do not fit the language model"] if wrong else []


def _lora_fits(name: str, lora: Shapes, layers: Shapes) -> bool:
    a, b = (lora.get(f"{name}.lora_{half}.default.weight", ()) for half in "AB")
    layer = layers.get(name.removeprefix("llm.base_model.model.") + ".weight")
    return len(a) == len(b) == 2 and a[0] == b[1] and layer == (b[0], a[1])


def _check_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer

    require_file(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise CheckpointError(f"{path} is damaged: {error}") from error
    control = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    missing = [token for token in control if tokenizer.token_to_id(token) is None]
    if missing:
        raise CheckpointError(f"{path} knows no {', '.join(missing)}: not that of a Qwen2 chat model")


_EXAMINERS: dict[str, Callable[[Path, Checkpoint], _Found]] = {
    "asr": _recogniser,
    "llm": _large_recogniser,
    "lid": _identifier,
    "punc": _restorer,
    "lm": _language_model,
    "vad": _detector,
    "stream-vad": _detector,
    "events": _detector,
}


def _statistics_problems(folder: Path, known: ModelEntry) -> list[str]:
    if "cmvn.ark" not in known.required or not (folder / "cmvn.ark").exists():
        return []  # a missing file is named already
    return _tried(lambda: read_cmvn(folder / "cmvn.ark"))


def _tried(read: Callable[[], object]) -> list[str]:
    try:
        read()
    except VermilionError as error:
        return [str(error)]
    return []


# ---- releases


@cache
def _releases() -> dict[str, dict[str, dict[str, Any]]]:
    """Sizes and beginnings of the SHA-256 of published files, by model and name."""
    text = files("vermilion.checkpoints").joinpath("releases.json").read_text(encoding="utf8")
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(text)
    return found


def _files(folder: Path, known: ModelEntry | None) -> list[FileReport]:
    published = _releases().get(known.name, {}) if known is not None else {}
    found = (path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    return [_file(path, path.relative_to(folder).as_posix(), published) for path in sorted(found)]


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _file(path: Path, name: str, published: Mapping[str, Mapping[str, Any]]) -> FileReport:
    size = path.stat().st_size
    if name not in published:
        return FileReport(name, size, None)
    release = published[name]
    same = size == release["bytes"]
    if same and "sha256" in release and size <= LARGEST_HASHED:
        same = hashlib.sha256(path.read_bytes()).hexdigest().startswith(release["sha256"])
    return FileReport(name, size, "release" if same else "other")


def _release_remarks(report: ModelReport) -> list[str]:
    """Beside the release's weights, files of its sizes and another content: damaged, or tampered with."""
    published = _releases().get(report.model, {})
    if not any(file.name == PUBLISHED_NAME and file.release == "release" for file in report.files):
        return []
    return [
        f"{file.name} has the size of the published file and another content"
        for file in report.files
        if file.release == "other" and file.size == published[file.name]["bytes"]
    ]
