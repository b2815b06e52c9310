"""The language model of FireRedASR2-LLM: a Qwen2 folder, its tokenizer, LoRA weights, and the form it runs in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.asr.prompt import END, PADDING, SPEECH, START
from vermilion.checkpoints.reader import require_files
from vermilion.decoding.options import Weights
from vermilion.errors import (
    CheckpointError,
    MissingDependencyError,
    ModelError,
    OptionsError,
    VermilionError,
    install,
)
from vermilion.runtime import Runtime, free_memory

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

LORA_ALPHA = 16
LORA_PREFIX = "llm.base_model.model."
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.05, "int4": 0.6}
"""of a weight, scales included"""
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
STRANGERS = "they do not belong together; `vermilion pull FireRedASR2-LLM` fetches both"
INSTALL = f"FireRedASR2-LLM needs another package: {install('llm')}"


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of a language model with the placeholder of speech added."""

    tokenizer: Tokenizer
    end: int
    """token that ends an answer"""
    speech: int
    """placeholder of the speech"""

    @classmethod
    def from_folder(cls, folder: Path, speech: str = SPEECH) -> Vocabulary:
        """Read `tokenizer.json`.

        Raises:
            CheckpointError: it is missing, damaged, or not the tokenizer of a Qwen2 chat model.
        """
        from tokenizers import Tokenizer

        file = require_files(folder, ["tokenizer.json"]) / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise CheckpointError(f"{file} is damaged: {error}") from error
        tokenizer.add_special_tokens([speech])
        ids = {token: tokenizer.token_to_id(token) for token in (START, END, PADDING, speech)}
        known = {token: i for token, i in ids.items() if i is not None}
        if missing := ids.keys() - known.keys():
            raise CheckpointError(f"{file} knows no {', '.join(sorted(missing))}: not that of a Qwen2 chat model")
        return cls(tokenizer, known[END], known[speech])

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def text(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens left out."""
        found: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return found

    def byte_lengths(self, ids: Sequence[int]) -> list[int]:
        """UTF-8 bytes that each token writes; control tokens write none."""
        special = self.tokenizer.get_added_tokens_decoder()
        return [0 if i in special else len(self.tokenizer.id_to_token(i) or "") for i in ids]  # a letter per byte


class LanguageModel:
    """A causal language model that reads vectors."""

    def __init__(self, network: Any, vocabulary: Vocabulary) -> None:
        """Take a `Qwen2ForCausalLM`."""
        self.network, self.vocabulary = network, vocabulary
        self.table = network.get_input_embeddings()
        self.wide = False
        """the network wants float32 vectors, whatever its weights are (float16)"""

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self.network.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the vectors have to be."""
        device: torch.device = self.table.weight.device
        return device

    def embed(self, ids: Tensor) -> Tensor:
        """(…,) token ids → (…, width)."""
        vectors: Tensor = self.table(ids)
        return vectors.float() if self.wide else vectors

    def read(self, prompts: Sequence[Tensor]) -> tuple[Tensor, RunningText]:
        """Read prompts of any lengths.

        Args:
            prompts: (L, width) each.

        Returns:
            (N, V) logits of the first token behind each, and where to go on.
        """
        import torch

        lengths = torch.tensor([len(p) for p in prompts], device=prompts[0].device)
        longest = int(lengths.max())
        vectors = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[1])
        for row, prompt in zip(vectors, prompts, strict=True):  # padding in front: all end at the same column
            row[longest - len(prompt) :] = prompt
        mask = torch.arange(longest, device=lengths.device) >= longest - lengths[:, None]
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        with torch.inference_mode():
            out = self.network(
                inputs_embeds=vectors,
                attention_mask=mask.long(),
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
            )
        return out.logits[:, -1].to(self.device), RunningText(self, out.past_key_values, mask, positions[:, -1])


class RunningText:
    """Keys and values of a batch of texts (`vermilion.decoding.generation.Continuation`)."""

    def __init__(self, model: LanguageModel, cache: Any, mask: Tensor, positions: Tensor) -> None:
        """Take (rows, L) visible positions and the (rows,) newest one of each."""
        self.model, self.cache, self.mask, self.positions = model, cache, mask, positions

    def advance(self, tokens: Tensor) -> Tensor:
        """Read (rows,) new tokens: (rows, V) logits of the next ones."""
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.positions = self.positions + 1
        out = self.model.network(
            inputs_embeds=self.model.embed(tokens[:, None]),
            attention_mask=self.mask.long(),
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        logits: Tensor = out.logits[:, -1].to(self.model.device)
        return logits

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order."""
        self.cache.reorder_cache(rows)  # each layer's on its own device
        self.mask, self.positions = self.mask[rows], self.positions[rows]


@dataclass(frozen=True)
class Lora:
    """The LoRA weights of a checkpoint."""

    state: Mapping[str, Tensor]
    """by key of the layer, `model.layers.0.mlp.up_proj`, and `.lora_A` or `.lora_B`"""

    @classmethod
    def of(cls, state: Mapping[str, Tensor], source: Path) -> Lora:
        """Take them out of a checkpoint's tensors.

        Raises:
            CheckpointError: a half is missing or a key is of an unknown form.
        """
        found = {}
        for key, tensor in state.items():
            if key.startswith("llm."):
                name = key.removeprefix(LORA_PREFIX).removesuffix(".default.weight")
                if not key.startswith(LORA_PREFIX) or not name.endswith((".lora_A", ".lora_B")):
                    raise CheckpointError(f"{source} has the unknown language model weight {key}")
                found[name] = tensor
        layers = {name.rpartition(".")[0] for name in found}
        alone = [layer for layer in sorted(layers) if not {f"{layer}.lora_A", f"{layer}.lora_B"} <= found.keys()]
        if alone:
            raise CheckpointError(f"{source} has only one half of the LoRA weights of {', '.join(alone[:4])}")
        return cls(found)

    def __iter__(self) -> Iterator[tuple[str, Tensor, Tensor, float]]:
        """Layer, A, B and factor of each."""
        for name in sorted({name.rpartition(".")[0] for name in self.state}):
            a, b = self.state[f"{name}.lora_A"], self.state[f"{name}.lora_B"]
            yield name, a, b, LORA_ALPHA / len(a)

    def check(self, name: str, shape: tuple[int, ...], a: Tensor, b: Tensor) -> None:
        """Compare with the layer's weight (out, in).

        Raises:
            CheckpointError: they do not fit.
        """
        if (len(b), a.shape[1]) != tuple(shape) or len(a) != b.shape[1]:
            given = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise CheckpointError(f"the LoRA weights of {name} are {given}, the layer {tuple(shape)}: another Qwen2?")


def load_language_model(
    folder: Path,
    runtime: Runtime,
    lora: Lora | None,
    *,
    weights: Weights = "full",
    merge_lora: bool = True,
    device_map: str | Mapping[str, Any] | None = None,
) -> LanguageModel:
    """Load a Qwen2 folder.

    Args:
        folder: config.json, tokenizer.json and the safetensors shards.
        runtime: device and precision; int8 means our own CPU kernels.
        lora: added to the layers that it names.
        weights: "int8" and "int4" keep the matrices so, by torchao; the activations have the precision of `runtime`.
        merge_lora: add it to the weights once; else beside them at every step (exact for int8 and int4 weights).
        device_map: how layers are spread over devices, as `accelerate` reads it ("auto", "balanced", a mapping).

    Raises:
        CheckpointError: files are missing or do not fit.
        MissingDependencyError: transformers (or accelerate, torchao) is not installed.
        ModelError: there is not enough memory; the message says how much is needed.
        OptionsError: options contradict each other.
    """
    if weights != "full" and runtime.precision == "int8":
        raise OptionsError("choose int8 by precision (CPU) or by weights (torchao), not by both")
    if weights != "full" and device_map is not None:
        raise OptionsError("a device map spreads full weights; for int8 and int4 weights name one device")
    if weights == "int4" and (runtime.device.type != "cuda" or runtime.precision != "bfloat16"):
        raise OptionsError(
            "int4 weights need a CUDA GPU and the precision bfloat16; on a CPU choose the precision int8"
        )
    config = read_config(folder)
    _check_shards(folder)
    vocabulary = Vocabulary.from_folder(folder)
    _check_vocabulary(folder, vocabulary, config)
    needed = memory_needed(config, weights, runtime.precision)
    if device_map is None:
        _require_room(config, weights, runtime, needed)
    with _loading(folder, needed):
        network = _read(folder, runtime, weights, device_map)
        if any(parameter.is_meta for parameter in network.parameters()):
            raise ModelError(_too_large(needed, "the devices of the map cannot hold it: some layers found no place"))
        if lora is not None:
            _apply(network, lora, merge_lora)
        network = _in_form(network, runtime, weights, device_map)
    model = LanguageModel(network, vocabulary)
    model.wide = runtime.precision == "float16"
    return model


def load_trainable(folder: Path, runtime: Runtime) -> LanguageModel:
    """Load a Qwen2 folder in a form through which gradients flow; its own weights are frozen.

    Args:
        folder: config.json, tokenizer.json and the safetensors shards.
        runtime: device, and float32 or bfloat16.

    Raises:
        CheckpointError: files are missing or do not fit.
        MissingDependencyError: transformers is not installed.
        ModelError: there is not enough memory.
    """
    config = read_config(folder)
    _check_shards(folder)
    vocabulary = Vocabulary.from_folder(folder)
    _check_vocabulary(folder, vocabulary, config)
    needed = memory_needed(config, "full", runtime.precision)
    _require_room(config, "full", runtime, needed)
    with _loading(folder, needed):
        network = _read(folder, runtime, "full", None)
    return LanguageModel(network, vocabulary)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a language model.

    Raises:
        CheckpointError: it is missing or describes another kind of model.
    """
    file = require_files(folder, ["config.json"]) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != "qwen2":
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise CheckpointError(f"{file} describes a model of type {kind!r}; FireRedASR2-LLM needs qwen2")
    wrong = [name for name in SIZES if not isinstance(config.get(name), int) or config[name] < 1]
    if wrong:
        raise CheckpointError(f"{file} lacks the sizes {', '.join(wrong)}")
    return config


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        if not any(folder.glob("*.safetensors")):
            raise CheckpointError(f"{folder} holds no weights (*.safetensors); `vermilion pull FireRedASR2-LLM`")
        return
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged: {error}") from error
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing)}; "
            "`vermilion pull FireRedASR2-LLM` fetches what is missing"
        )


def _check_vocabulary(folder: Path, vocabulary: Vocabulary, config: Mapping[str, Any]) -> None:
    size, rows = vocabulary.tokenizer.get_vocab_size(with_added_tokens=True), int(config["vocab_size"])
    if size > rows:
        raise CheckpointError(f"the tokenizer in {folder} has {size} tokens, the model {rows}: {STRANGERS}")
    ends = config.get("eos_token_id")
    known = {vocabulary.end, vocabulary.tokenizer.token_to_id(PADDING)}
    if isinstance(ends, int) and ends not in known:
        raise CheckpointError(
            f"config.json in {folder} ends answers with token {ends}, in tokenizer.json {END} is {vocabulary.end}: "
            f"{STRANGERS}"
        )


def memory_needed(config: Mapping[str, Any], weights: str, precision: str) -> int:
    """Bytes of a language model's weights.

    Args:
        config: of the model.
        weights: "full", "int8" or "int4"; embeddings and output layer have the precision.
        precision: "int8" holds the output layer so too, and the embeddings in float32.
    """
    width, inner, layers = (int(config[k]) for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    heads = int(config["num_attention_heads"])
    groups = int(config.get("num_key_value_heads") or heads)
    matrices = layers * (2 * width * width + 2 * width * (width // heads) * groups + 3 * width * inner)
    table = width * int(config["vocab_size"])
    head = 0 if config.get("tie_word_embeddings") else table
    if precision == "int8":
        return int((matrices + head) * BYTES["int8"] + table * BYTES["float32"])
    return int(matrices * BYTES[precision if weights == "full" else weights] + (head + table) * BYTES[precision])


def require_memory(needed: int, device: torch.device) -> None:
    """Refuse before the machine runs out of memory.

    Raises:
        ModelError: less is free than needed.
    """
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "cpu" and (found := free_memory()) is not None:
        free = found
    else:
        return
    if needed > free:
        raise ModelError(_too_large(needed, f"{free / 1e9:.1f} GB are free on {device}"))


def _require_room(config: Mapping[str, Any], weights: Weights, runtime: Runtime, needed: int) -> None:
    """Room for the result, and for what is read before it is converted.

    Raises:
        ModelError: less is free than needed.
    """
    import torch

    require_memory(needed, runtime.device)
    if weights != "full" or runtime.precision == "int8":
        stored = str(config.get("torch_dtype") or config.get("dtype") or "float32")
        read = runtime.precision if weights != "full" else stored if stored in BYTES else "float32"
        require_memory(memory_needed(config, "full", read), torch.device("cpu"))


def _too_large(needed: int, reason: str) -> str:
    return (
        f"the language model needs {needed / 1e9:.1f} GB for its weights, and {reason}. Choose a smaller form "
        "(precision bfloat16, or int8 and int4 weights), several GPUs (a device map), or FireRedASR2-AED"
    )


@contextmanager
def _loading(folder: Path, needed: int) -> Iterator[None]:
    """Turn what the libraries raise into our errors."""
    import torch
    from safetensors import SafetensorError

    try:
        yield
    except VermilionError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"{INSTALL} ({error})") from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelError(_too_large(needed, f"memory ran out: {error}")) from error
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot load the language model in {folder}: {error}") from error


def _read(folder: Path, runtime: Runtime, weights: Weights, device_map: str | Mapping[str, Any] | None) -> Any:
    from transformers import Qwen2ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # ours are the only bars
    place = device_map
    if place is None and runtime.device.type != "cpu" and weights == "full":
        place = {"": str(runtime.device)}
    loaded: Any = Qwen2ForCausalLM.from_pretrained(
        folder,
        dtype="auto" if runtime.precision == "int8" else runtime.dtype,  # "auto" = as the file has them
        device_map=place,
        attn_implementation="sdpa",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    network, report = loaded
    missing = sorted(report.get("missing_keys", ()))
    wrong = sorted(map(str, report.get("mismatched_keys", ())))
    if missing or wrong:
        raise ValueError(f"weights are missing or of another shape: {', '.join([*missing, *wrong][:6])}")
    return network.eval().requires_grad_(False)


def _apply(network: Any, lora: Lora, merge: bool) -> None:
    from vermilion.nn.lora import LoraLinear, merged_weight

    for name, a, b, scale in lora:
        parent, _, child = name.rpartition(".")
        try:
            module = network.get_submodule(parent)
            layer = getattr(module, child)
        except AttributeError as error:
            raise CheckpointError(f"the language model has no layer {name} for its LoRA weights") from error
        lora.check(name, layer.weight.shape, a, b)
        if merge:
            layer.weight.data = merged_weight(layer.weight.data, a, b, scale)
        else:
            setattr(module, child, LoraLinear(layer, a.to(layer.weight), b.to(layer.weight), scale))


def _in_form(network: Any, runtime: Runtime, weights: Weights, device_map: object) -> Any:
    from vermilion.nn.half import guard

    if weights != "full":
        network = _quantised(network, weights, runtime.device)
    elif runtime.device.type == "cpu" and device_map is None:
        prepared = runtime.prepare(network)  # int8: layer by layer, from what the file holds
        network = runtime.finish(prepared.float() if runtime.precision == "int8" else prepared)
    if runtime.precision == "float16":
        guard(network.model)
    return network


def _quantised(network: Any, weights: Weights, device: torch.device) -> Any:
    """Matrices of the layers in int8 or int4; embeddings, output layer and LoRA keep their precision."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    if weights == "int8":
        config: object = Int8WeightOnlyConfig(set_inductor_config=False)
    else:  # the layout whose kernels are part of torch itself
        config = Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d", set_inductor_config=False)
    quantize_(network, config, filter_fn=_is_matrix, device=device)  # a matrix at a time goes there
    return network.to(device)


def _is_matrix(layer: object, name: str) -> bool:
    return type(layer).__name__ == "Linear" and "lm_head" not in name
