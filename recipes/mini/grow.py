"""Give a trained recogniser more encoder layers: a small one is trained first, a deeper one goes on from it.

    python recipes/mini/grow.py mini/aed2/model --layers 7 --out mini/grown

A new block stands behind each of the evenly chosen old ones. What it adds starts at zero and its norm is that of the
block before it, so that it passes frames on nearly as they are: the grown network starts where the small one ended.
"""

import argparse
import shutil
from pathlib import Path

import torch

from vermilion.checkpoints.reader import read_checkpoint
from vermilion.training.publish import publish

SILENT = ("ffn1.net.4.", "ffn2.net.4.", "mhsa.fc.", "conv.pointwise_conv2.")
"""last layer of each part of a block: with zeros here a part adds nothing"""


def grown(state: dict[str, torch.Tensor], before: int, after: int) -> dict[str, torch.Tensor]:
    """Weights of `after` blocks out of those of `before`."""
    prefix = "encoder.layer_stack."
    found = {k: v for k, v in state.items() if not k.startswith(prefix)}
    copies = [after * (i + 1) // before - after * i // before for i in range(before)]
    place = 0
    for layer, count in enumerate(copies):
        own = {k.removeprefix(f"{prefix}{layer}."): v for k, v in state.items() if k.startswith(f"{prefix}{layer}.")}
        for copy in range(count):
            for key, value in own.items():
                fresh = copy > 0 and key.startswith(SILENT)
                found[f"{prefix}{place}.{key}"] = torch.zeros_like(value) if fresh else value.clone()
            place += 1
    return found


def main() -> None:
    """Write the grown model beside its dictionary and statistics."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--layers", type=int, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    checkpoint = read_checkpoint(given.model)
    before = int(checkpoint.arg("n_layers_enc"))
    if not before < given.layers:
        arguments.error(f"the model has {before} layers already")
    given.out.mkdir(parents=True, exist_ok=True)
    for companion in ("cmvn.ark", "dict.txt", "train_bpe1000.model"):
        if (given.model / companion).exists():
            shutil.copy(given.model / companion, given.out)
    state = grown(checkpoint.state, before, given.layers)
    publish(given.out, {**checkpoint.args, "n_layers_enc": given.layers}, state)
    print(
        f"{before} -> {given.layers} layers, {sum(v.numel() for v in state.values()) / 1e6:.1f} M values in {given.out}"
    )


if __name__ == "__main__":
    main()
