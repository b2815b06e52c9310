"""Bring a recogniser's encoder over the plateau at which CTC starts: frames first learn evenly spread tokens.

    python recipes/mini/flat_start.py sets/asr-train.jsonl --init mini/aed1/model --out mini/flat --steps 600

The old flat start of hidden Markov models: between the first and the last loud frame of a short utterance, every
token gets a stretch in proportion to its letters; the frames around are blank. This is wrong in detail and right on
average, which is what CTC has to find out by itself otherwise, in many hours of audio.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vermilion.asr.tokenizer import Tokenizer
from vermilion.manifests import read_manifest
from vermilion.training.aed import copy_companions, network_for
from vermilion.training.loop import adamw
from vermilion.training.options import AedOptions, DataOptions, TrainingOptions
from vermilion.training.publish import publish
from vermilion.training.speech import SpeechBatch, SpeechData, read_cmvn_or_compute
from vermilion.training.tokens import encode_texts

LOUD = 0.35
"""of the way from the most silent to the loudest frame"""


def weights(vocabulary: list[str]) -> Tensor:
    """How long each token takes, in letters; a Chinese character counts as three."""
    return torch.tensor([3.0 if ord(t[-1]) > 0x2E80 else float(max(1, len(t.strip("▁")))) for t in vocabulary])


def spread(batch: SpeechBatch, letters: Tensor) -> Tensor:
    """(N, T') targets: token ids in equal shares of the loud part, 0 around it, -100 behind the end."""
    n, frames = len(batch.lengths), (batch.features.shape[1] + 3) // 4
    targets = torch.full((n, frames), -100)
    for i in range(n):
        length = int((batch.lengths[i] + 3) // 4)
        energy = F.avg_pool1d(batch.features[i, : int(batch.lengths[i])].mean(1)[None], 4, 4, ceil_mode=True)[0]
        loud = torch.nonzero(energy > energy.min() + LOUD * (energy.max() - energy.min()))[:, 0]
        first, last = int(loud[0]), int(loud[-1]) + 1
        tokens = batch.tokens[i, : int(batch.token_lengths[i])]
        ends = letters[tokens].cumsum(0)
        place = (torch.arange(last - first) + 0.5) / (last - first) * ends[-1]
        targets[i, :length] = 0
        targets[i, first:last] = tokens[torch.searchsorted(ends, place).clamp(max=len(tokens) - 1)]
    return targets


def main() -> None:
    """Train encoder and CTC head on spread tokens and publish them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--init", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=600)
    arguments.add_argument("--rate", type=float, default=1e-3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    copy_companions(given.init, given.out)
    tokenizer = Tokenizer.from_folder(given.out)
    letters = weights(tokenizer.vocabulary)
    utterances = read_manifest(given.manifest)
    extractor = read_cmvn_or_compute(given.out / "cmvn.ark", utterances)
    ids = encode_texts(tokenizer, [u.text or "" for u in utterances])
    data = SpeechData(utterances, ids, extractor, DataOptions(max_frames=2500, workers=1))
    network, args = network_for(AedOptions(init=given.init, ctc_weight=0.5, dropout=0.0), len(letters), False)
    optimizer = adamw(network, TrainingOptions())
    began = time.monotonic()
    log = given.out / "flat_start.jsonl"
    for step, (_, _, batch) in enumerate(data.training(torch.device("cpu"))(0, 0), 1):
        for group in optimizer.param_groups:
            group["lr"] = given.rate * min(1.0, step / 50)
        encoded, _ = network.encoder(batch.features, batch.lengths)
        targets = spread(batch, letters)
        scores = network.ctc(encoded).flatten(0, 1)
        loss = F.nll_loss(scores, targets.flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            spoken = targets.flatten() > 0
            right = (scores.argmax(-1) == targets.flatten())[spoken].float().mean()
            row = {"step": step, "loss": round(float(loss), 4), "right": round(float(right), 4), "seconds": round(time.monotonic() - began)}  # fmt: skip  # noqa: E501
            with log.open("a") as out:
                out.write(json.dumps(row) + "\n")
        if step == given.steps:
            break
    publish(given.out, args, network.published())


if __name__ == "__main__":
    main()
