"""FireRedASR2-LLM at the published size with random weights: memory, time to load, speed of a batch.

    python benchmarks/llm.py /tmp/full --write                      # 18 GB, once
    python benchmarks/llm.py /tmp/full --precision int8             # CPU; or --device cuda --precision bfloat16

A batch of utterances of 5 s, 12 new tokens each (greedy): random weights never end an answer.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from full_size import HEADS, LAYERS, WIDTH, state_of, write_cmvn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from vermilion.asr import DecodingOptions, LlmRecognizer
from vermilion.checkpoints.convert import write_safetensors
from vermilion.nn.adapter import SpeechAdapter
from vermilion.nn.conformer import ConformerConfig, ConformerEncoder

QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "vocab_size": 152064, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "eos_token_id": 256,
}  # fmt: skip
SHARD = 4_000_000_000


def write_language_model(folder: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(QWEN), encoding="utf8")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in Qwen2ForCausalLM(Qwen2Config(**QWEN)).state_dict().items()}
    index, shard, size, number = {}, {}, 0, 1
    for i, (key, shape) in enumerate(shapes.items()):
        tensor = torch.ones(shape) if key.endswith("norm.weight") else 0.02 * torch.randn(shape)
        shard[key] = tensor.to(torch.bfloat16)
        size += shard[key].nbytes
        name = f"model-{number:05d}.safetensors"
        index[key] = name
        if size > SHARD or i == len(shapes) - 1:
            write_safetensors(folder / name, shard, {"format": "pt"})
            shard, size, number = {}, 0, number + 1
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}), encoding="utf8"
    )


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_language_model(folder / "Qwen2-7B-Instruct")
    sizes = {"idim": 80, "d_model": WIDTH, "n_head": HEADS, "n_layers_enc": LAYERS, "kernel_size": 33}
    encoder = state_of(lambda: ConformerEncoder(ConformerConfig(80, WIDTH, HEADS, LAYERS, 33)), "encoder.", 1)
    save = {"args": argparse.Namespace(**sizes, pe_maxlen=5000), "model_state_dict": encoder}
    torch.save(save, folder / "asr_encoder.pth.tar")
    own = state_of(lambda: SpeechAdapter(WIDTH, QWEN["hidden_size"]), "encoder_projector.", 2)
    settings = argparse.Namespace(encoder_downsample_rate=2, use_lora=False, freeze_llm=True, use_fp16=0)
    torch.save({"args": settings, "model_state_dict": own}, folder / "model.pth.tar")
    write_cmvn(folder / "cmvn.ark")


def memory(device: str) -> str:
    peak = f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    return peak + (f", GPU {torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if device.startswith("cuda") else "")


def resident() -> str:
    rows = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return f"now {int(next(r for r in rows if r.startswith('VmRSS')).split()[1]) / 1e6:.2f} GB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--weights", default="full")
    parser.add_argument("--batches", default="1,4")
    arguments = parser.parse_args()
    folder = arguments.folder / "FireRedASR2-LLM"
    if arguments.write:
        write(folder)
        return
    start = time.perf_counter()
    recognizer = LlmRecognizer.from_pretrained(folder, arguments.device, arguments.precision, weights=arguments.weights)
    print(f"loaded in {time.perf_counter() - start:.1f} s, {memory(arguments.device)}, {resident()}", flush=True)
    options = DecodingOptions(search="greedy", max_tokens=12, timestamps=False)
    for count in map(int, arguments.batches.split(",")):
        audio = [(np.random.default_rng(i).normal(0, 0.1, 80000).astype(np.float32), 16000) for i in range(count)]
        recognizer.recognize(audio[:1], options)
        start = time.perf_counter()
        found = recognizer.recognize(audio, options)
        spent = time.perf_counter() - start
        assert all(len(r.tokens) == 12 for r in found), found
        print(
            f"batch {count}: {spent:.2f} s, {5 * count / spent:.2f} s of audio per s, {memory(arguments.device)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
