"""A tiny random FireRedASR2-LLM folder in the published layout."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import SEQUENCE_ARGS, prefixed, randomise, save, write_cmvn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from vermilion.nn.adapter import SpeechAdapter
from vermilion.nn.conformer import ConformerConfig, ConformerEncoder

END, PADDING, START = 256, 257, 258
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "bos_token_id": PADDING,
    "eos_token_id": END,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 4096,
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 272,
}
RANK = 4


def write_qwen(folder: Path, seed: int = 0, **changes) -> Path:
    """A Qwen2 folder: byte-level tokenizer without merges, two shards."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    config = {**QWEN, **changes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
    sampling = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.7, "eos_token_id": [END, PADDING]}
    (folder / "generation_config.json").write_text(json.dumps(sampling), encoding="utf8")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").write_text("{}", encoding="utf8")
    network = randomise(Qwen2ForCausalLM(Qwen2Config(**config)), seed)
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    keys = sorted(state)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    place = {key: names[i % 2] for i, key in enumerate(keys)}
    for name in names:
        save_file({k: state[k] for k in keys if place[k] == name}, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf8")
    return folder


def lora_state(seed: int = 5, config: dict = QWEN) -> dict:
    """LoRA weights of every projection, under the published keys."""
    generator = torch.Generator().manual_seed(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    groups = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (groups, width),
        "self_attn.v_proj": (groups, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    state = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (rows, columns) in shapes.items():
            key = f"llm.base_model.model.model.layers.{layer}.{name}.lora_"
            state[f"{key}A.default.weight"] = 0.1 * torch.randn(RANK, columns, generator=generator)
            state[f"{key}B.default.weight"] = 0.1 * torch.randn(rows, RANK, generator=generator)
    return state


def write_llm(folder: Path, encoder_seed: int = 0, lora: bool = True, override: int | None = None, **changes) -> Path:
    """Encoder (that of `tiny.write_aed` with the same seed), adapter, LoRA and language model.

    `override`: the seed of an encoder that replaces another one, which lies in asr_encoder.pth.tar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = ConformerConfig(80, 16, 2, 2, 7)
    encoder = prefixed(randomise(ConformerEncoder(sizes), encoder_seed), "encoder.")
    args = {**SEQUENCE_ARGS, "n_layers_dec": 2, "odim": 15}
    if override is None:  # as published
        torch.save({"args": argparse.Namespace(**args)}, folder / "asr_encoder.pth.tar")
    else:
        save(folder / "asr_encoder.pth.tar", args, encoder)
        encoder = prefixed(randomise(ConformerEncoder(sizes), override), "encoder.")
    width = {**QWEN, **changes}["hidden_size"]
    own = encoder | prefixed(randomise(SpeechAdapter(16, width), 7), "encoder_projector.")
    if lora:
        own |= lora_state()
    save(
        folder / "model.pth.tar",
        {"encoder_downsample_rate": 2, "use_lora": lora, "freeze_llm": False, "use_fp16": 0},
        own,
    )
    write_cmvn(folder / "cmvn.ark")
    write_qwen(folder / "Qwen2-7B-Instruct", **changes)
    return folder
