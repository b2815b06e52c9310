"""Write model folders of the published sizes with random weights: the arithmetic of the real ones, for benchmarks.

    python benchmarks/full_size.py /tmp/full          # 10 GB, about a minute

Random weights say nothing about accuracy; they repeat one token, so benchmarks fix the number of steps.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import numpy as np
import torch

from vermilion.nn.conformer import ConformerConfig, ConformerEncoder
from vermilion.nn.ctc import CtcHead
from vermilion.nn.decoder import DecoderConfig, TransformerDecoder
from vermilion.nn.punctuation import PunctuationConfig, PunctuationNetwork

VOCABULARY, LABELS = 8667, 125
LAYERS, WIDTH, HEADS = 16, 1280, 20
SPECIAL = ["<blank>", "<unk>", "<pad>", "<sos>", "<eos>", "<sil>"]


def state_of(build, prefix: str, seed: int) -> dict[str, torch.Tensor]:
    """Random weights for a network that is only built on the meta device."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in build().state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            state[prefix + name] = torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
        else:
            state[prefix + name] = torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return state


def write_cmvn(path: Path) -> None:
    sums = np.zeros((2, 81))
    sums[0, :80], sums[0, 80], sums[1, :80] = 12_000.0, 1000.0, (16.0 + 144.0) * 1000
    path.write_bytes(b"\x00BDM " + struct.pack("<bibi", 4, 2, 4, 81) + sums.astype("<f8").tobytes())


def write_sequence_model(folder: Path, tokens: list[str], prefix: str, size_key: str, ctc: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = state_of(lambda: ConformerEncoder(ConformerConfig(80, WIDTH, HEADS, LAYERS, 33)), "encoder.", 1)
    state |= state_of(lambda: TransformerDecoder(DecoderConfig(len(tokens), WIDTH, HEADS, LAYERS)), prefix, 2)
    state[prefix + "tgt_word_emb.weight"] /= WIDTH**0.5
    if ctc:
        state |= state_of(lambda: CtcHead(WIDTH, len(tokens)), "ctc.", 3)
    sizes = {"idim": 80, "d_model": WIDTH, "n_head": HEADS, "n_layers_enc": LAYERS, "n_layers_dec": LAYERS}
    sizes |= {"kernel_size": 33, "pe_maxlen": 5000, "sos_id": 3, "eos_id": 4, "pad_id": 2, size_key: len(tokens)}
    sizes |= {"residual_dropout": 0.1, "dropout_rate": 0.1}
    torch.save({"args": argparse.Namespace(**sizes), "model_state_dict": state}, folder / "model.pth.tar")
    (folder / "dict.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf8")
    write_cmvn(folder / "cmvn.ark")


def write_punctuation(folder: Path) -> None:
    bert = folder / "chinese-lert-base"
    bert.mkdir(parents=True, exist_ok=True)
    config = {"vocab_size": 21128, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config |= {"intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "model_type": "bert"}
    (bert / "config.json").write_text(json.dumps(config), encoding="utf8")
    characters = [chr(0x4E00 + i) for i in range(21123)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    for path in (folder / "chinese-bert-wwm-ext_vocab.txt", bert / "vocab.txt"):
        path.write_text("\n".join(vocabulary) + "\n", encoding="utf8")
    (folder / "out_dict").write_text("<space> 0\n， 1\n。 2\n？ 3\n！ 4\n", encoding="utf8")
    state = state_of(lambda: PunctuationNetwork(PunctuationConfig.from_bert(config, 5)), "", 4)
    args = argparse.Namespace(odim=5, cls_id=2, classifier_dropout=0.1, ignore_index=-100)
    torch.save({"args": args, "model_state_dict": state}, folder / "model.pth.tar")


def write_all(folder: Path) -> None:
    """AED, LID (its decoder as deep as the recogniser's) and punctuation; what is there already is kept."""
    characters = [chr(0x4E00 + i) for i in range(VOCABULARY - len(SPECIAL))]
    if not (folder / "FireRedPunc" / "model.pth.tar").exists():
        write_punctuation(folder / "FireRedPunc")
    if not (folder / "FireRedASR2-AED" / "model.pth.tar").exists():
        write_sequence_model(folder / "FireRedASR2-AED", [*SPECIAL, *characters], "decoder.", "odim", True)
    labels = [*SPECIAL[:5], "zh", "mandarin", "en", *(f"l{i}" for i in range(LABELS - 8))]
    if not (folder / "FireRedLID" / "model.pth.tar").exists():
        write_sequence_model(folder / "FireRedLID", labels, "lid_decoder.", "lid_odim", False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_all(parser.parse_args().folder)
