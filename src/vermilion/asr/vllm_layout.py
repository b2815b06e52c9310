"""Writes FireRedASR2-LLM in the layout that vLLM (0.17 and later) reads: one folder, LoRA weights merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.asr.language_model import Lora, Vocabulary, read_config
from vermilion.asr.llm import MOST_SECONDS, QWEN, lora_of, read_parts
from vermilion.asr.vllm import AUDIO
from vermilion.audio import FeatureExtractor
from vermilion.checkpoints.convert import write_safetensors
from vermilion.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = "-vllm"
ARCHITECTURE = "FireRedASR2ForConditionalGeneration"
SPEECH_FILE = "model-speech.safetensors"
ENCODER_SIZES = ("idim", "n_layers_enc", "n_head", "d_model", "kernel_size")
COPIED = ("vocab.json", "merges.txt")


def write_vllm(folder: Path, target: Path | None = None, dtype: str | None = None) -> list[Path]:
    """Rewrite a FireRedASR2-LLM folder for vLLM.

    Args:
        folder: model folder in the published layout.
        target: new folder; by default beside `folder`, with `-vllm` after its name.
        dtype: number format of all weights; None = as they are (vLLM converts when it loads).

    Returns:
        The files written, the weights first.

    Raises:
        CheckpointError: files are missing, do not fit, or cannot be written.
    """
    base = target or folder.resolve().with_name(folder.resolve().name + SUFFIX)
    encoder, own = read_parts(folder)
    config = read_config(folder / QWEN)
    Vocabulary.from_folder(folder / QWEN, AUDIO)  # refused before anything large is written
    speech = {k: v for k, v in encoder.state.items() if k.startswith("encoder.") and not k.endswith("encoding.pe")}
    speech |= {k: v for k, v in own.state.items() if k.startswith("encoder_projector.")}
    try:
        base.mkdir(parents=True, exist_ok=True)
        index = _write_language_model(folder / QWEN, base, lora_of(own), dtype)
        write_safetensors(base / SPEECH_FILE, speech, {"format": "pt"}, dtype)
        index |= dict.fromkeys(speech, SPEECH_FILE)
        sizes = {name: int(encoder.arg(name)) for name in ENCODER_SIZES}
        sizes["pe_maxlen"] = int(encoder.args.get("pe_maxlen", 5000))
        rate = int(own.args.get("encoder_downsample_rate", 2))
        _write_json(base / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
        _write_json(base / "config.json", _config(config, sizes, rate, dtype))
        _write_json(base / "generation_config.json", _generation(folder / QWEN))
        _write_tokenizer(folder / QWEN, base)
        _write_json(base / "preprocessor_config.json", _preprocessor(folder, rate))  # the last: the folder is complete
    except OSError as error:
        raise CheckpointError(f"cannot write {base}: {error}") from error
    weights = [base / name for name in sorted(set(index.values()))]
    return weights + sorted(file for file in base.iterdir() if file.is_file() and file not in weights)


def _write_language_model(folder: Path, base: Path, lora: Lora | None, dtype: str | None) -> dict[str, str]:
    """Shard by shard, LoRA weights merged; returns the file of each key."""
    from safetensors import SafetensorError, safe_open

    additions = {name: (a, b, scale) for name, a, b, scale in lora or ()}
    merged: set[str] = set()
    index: dict[str, str] = {}
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise CheckpointError(f"{folder} holds no weights (*.safetensors)")
    for shard in shards:
        try:
            with safe_open(shard, framework="pt", device="cpu") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise CheckpointError(f"{shard} is damaged: {error}") from error
        merged |= _merge(state, additions, lora)
        write_safetensors(base / shard.name, {f"llm.{k}": v for k, v in state.items()}, {"format": "pt"}, dtype)
        index |= dict.fromkeys((f"llm.{key}" for key in state), shard.name)
    if missing := sorted(additions.keys() - merged):
        raise CheckpointError(f"{folder} has no layer for the LoRA weights of {', '.join(missing[:4])}")
    return index


def _merge(state: dict[str, Tensor], additions: Mapping[str, tuple[Any, Any, float]], lora: Lora | None) -> set[str]:
    from vermilion.nn.lora import merged_weight

    found = set()
    for name, (a, b, scale) in additions.items():
        key = f"{name}.weight"
        if key in state and lora is not None:
            lora.check(name, tuple(state[key].shape), a, b)
            state[key] = merged_weight(state[key], a, b, scale)
            found.add(name)
    return found


def _config(config: dict[str, Any], sizes: dict[str, int], rate: int, dtype: str | None) -> dict[str, Any]:
    kept = {**config, "architectures": [ARCHITECTURE], "audio_encoder_conf": sizes, "encoder_downsample_rate": rate}
    if dtype is not None:
        kept["torch_dtype"] = dtype
    return kept


def _preprocessor(folder: Path, rate: int) -> dict[str, Any]:
    features = FeatureExtractor.from_cmvn(folder / "cmvn.ark")
    return {
        "feature_extractor_type": "FireRedASR2FeatureExtractor",
        "processor_class": "FireRedASR2Processor",
        "feature_size": 80,
        "num_mel_bins": 80,
        "dim": 80,
        "sampling_rate": 16000,
        "frame_length": 25,
        "frame_shift": 10,
        "chunk_length": int(MOST_SECONDS),
        "max_length": int(MOST_SECONDS * 100),
        "padding_value": 0.0,
        "dither": 0.0,
        "left_context": 3,
        "right_context": 3,
        "downsample_rate": rate,
        "means": [float(x) for x in features.mean],
        "inverse_std_variences": [float(x) for x in features.inverse_std],  # spelled as vLLM spells it
    }


def _generation(folder: Path) -> dict[str, Any]:
    """Neutral: the language model's own settings (a penalty, sampling) must not change what it hears."""
    vocabulary = Vocabulary.from_folder(folder, AUDIO)
    return {
        "do_sample": False,
        "repetition_penalty": 1.0,
        "eos_token_id": vocabulary.end,
        "pad_token_id": vocabulary.tokenizer.token_to_id("<|endoftext|>"),
    }


def _write_tokenizer(folder: Path, base: Path) -> None:
    """The tokenizer with vLLM's placeholder where the published one has its own."""
    vocabulary = Vocabulary.from_folder(folder, AUDIO)
    vocabulary.tokenizer.save(str(base / "tokenizer.json"))
    for name in COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, base / name)
    file = folder / "tokenizer_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf8")) if file.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    form = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings.setdefault("added_tokens_decoder", {})[str(vocabulary.speech)] = {"content": AUDIO, **form}
    settings.setdefault("additional_special_tokens", []).append(AUDIO)
    settings.setdefault("tokenizer_class", "Qwen2Tokenizer")
    _write_json(base / "tokenizer_config.json", settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf8")
