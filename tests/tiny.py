"""Tiny random checkpoints in the published layout, so that tests mean something without the golden data.

With the published files' quirks: position tables and the tied matrix stored apart, fields in `args` that nobody reads
or that mislead (`layer_n_head`; FireRedLID's `n_layers_dec` is not the depth of its decoder), an empty config.yaml.
"""

import argparse
import struct
from pathlib import Path

import numpy as np
import torch

from vermilion.nn.conformer import ConformerConfig, ConformerEncoder
from vermilion.nn.ctc import CtcHead
from vermilion.nn.decoder import DecoderConfig, TransformerDecoder
from vermilion.nn.dfsmn import DfsmnConfig

SPECIAL = ["<blank>", "<unk>", "<pad>", "<sos>", "<eos>", "<sil>"]
AED_TOKENS = [*SPECIAL, "你", "好", "世", "界", "▁HELLO", "▁SPEECH", "ING", "▁", "S"]
LID_TOKENS = [*SPECIAL[:5], "zh", "en", "fr", "mandarin", "yue"]


def write_cmvn(path: Path, mean: float = -4.0, deviation: float = 4.0) -> None:
    count = 1000.0
    sums = np.zeros((2, 81))
    sums[0, :80], sums[0, 80] = mean * count, count
    sums[1, :80] = (deviation**2 + mean**2) * count
    path.write_bytes(b"\x00BDM " + struct.pack("<bibi", 4, 2, 4, 81) + sums.astype("<f8").tobytes())


def save(path: Path, args: dict, state: dict) -> None:
    torch.save({"args": argparse.Namespace(**args), "model_state_dict": state}, path)


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights large enough that outputs differ from input to input."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
        elif name.endswith("bias"):
            p.data = 0.1 * torch.randn(p.shape, generator=generator)
    return module.eval()


def lively_decoder(vocabulary: int, seed: int) -> TransformerDecoder:
    """A decoder whose texts vary: with a plain last norm the newest token mostly names itself again."""
    decoder = randomise(TransformerDecoder(DecoderConfig(vocabulary, 16, 2, 2)), seed)
    generator = torch.Generator().manual_seed(seed)
    decoder.layer_norm_out.weight.data = torch.randn(16, generator=generator)
    return decoder


def prefixed(module: torch.nn.Module, prefix: str) -> dict:
    return {prefix + k: v for k, v in module.state_dict().items()}


SEQUENCE_ARGS = {
    **{"idim": 80, "d_model": 16, "n_head": 2, "d_inner": 64, "n_layers_enc": 2, "kernel_size": 7, "subsample": 4},
    **{"pe_maxlen": 50, "residual_dropout": 0.1, "dropout_rate": 0.1, "layer_n_head": 8, "use_fp16": 0, "lr": 0.001},
    **{"blank_id": 0, "sos_id": 3, "eos_id": 4, "pad_id": 2, "dict": "data/dict.txt", "freeze": None},
}


def quirks(decoder: TransformerDecoder, prefix: str) -> dict:
    """Tensors that published files hold beside the weights."""
    return {
        "encoder.positional_encoding.pe": torch.zeros(1, 99, 16),
        f"{prefix}positional_encoding.pe": torch.zeros(1, 50, 16),
        f"{prefix}tgt_word_prj.weight": decoder.state_dict()["tgt_word_emb.weight"].clone(),
    }


def _sequence_model(folder: Path, tokens: list[str], decoder_prefix: str, size_key: str, seed: int, ctc: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    encoder = randomise(ConformerEncoder(ConformerConfig(80, 16, 2, 2, 7)), seed)
    decoder = randomise(TransformerDecoder(DecoderConfig(len(tokens), 16, 2, 2)), seed + 1)
    state = {**prefixed(encoder, "encoder."), **prefixed(decoder, decoder_prefix), **quirks(decoder, decoder_prefix)}
    if ctc:
        state |= prefixed(randomise(CtcHead(16, len(tokens)), seed + 2), "ctc.")
    depth = {"n_layers_dec": 2} if decoder_prefix == "decoder." else {"n_layers_dec": 16, "n_layers_lid_dec": 2}
    save(folder / "model.pth.tar", {**SEQUENCE_ARGS, **depth, size_key: len(tokens)}, state)
    (folder / "config.yaml").touch()
    (folder / "dict.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf8")
    write_cmvn(folder / "cmvn.ark")
    return folder


def write_aed(folder: Path, seed: int = 0, ctc: bool = True) -> Path:
    return _sequence_model(folder, AED_TOKENS, "decoder.", "odim", seed, ctc)


def write_sentencepiece(folder: Path) -> Path:
    """A SentencePiece model of a few English words."""
    import sentencepiece

    lines = ["HELLO SPEECH WORLD", "DON'T STOP THE BLUETOOTH MUSIC", "PLEASE TURN ON THE LIGHT"] * 20
    with (folder / "train_bpe1000.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=60, model_type="bpe", minloglevel=2
        )
    return folder


def write_lid(folder: Path, seed: int = 3) -> Path:
    return _sequence_model(folder, LID_TOKENS, "lid_decoder.", "lid_odim", seed, False)


def write_vad(folder: Path, outputs: int = 1, look_ahead: int = 4, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"idim": 80, "R": 3, "M": 1, "H": 12, "P": 8, "N1": 5, "S1": 2, "N2": look_ahead, "S2": 1, "odim": outputs}
    rng = np.random.default_rng(seed)
    shapes = DfsmnConfig(**sizes).keys()
    state = {k: torch.from_numpy(rng.normal(0, 0.4, s).astype(np.float32)) for k, s in shapes.items()}
    save(folder / "model.pth.tar", {**sizes, "dropout": 0.0}, state)
    write_cmvn(folder / "cmvn.ark")
    return folder


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """Noise whose loudness changes, so that frames differ."""
    n = int(seconds * 16000)
    rng = np.random.default_rng(seed)
    slow = np.repeat(rng.uniform(0.02, 1.0, n // 1600 + 1), 1600)[:n]
    return (rng.normal(0, level, n) * slow).clip(-1, 1).astype(np.float32)
