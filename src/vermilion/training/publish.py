"""Writes finished models in the published layout, so that whatever reads those can load ours (SPEC section 2)."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vermilion.checkpoints.catalogue import KIND_FILE
from vermilion.checkpoints.reader import PUBLISHED_NAME
from vermilion.errors import TrainingError
from vermilion.training.checkpoints import reason, save_synced

PLAIN = (bool, int, float, str, type(None))
"""types that hyper-parameters may have: a published file holds no code"""


def prefixed(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Weights of a network under their published keys: `prefixed(encoder, "encoder.")`."""
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def prefixed_decoder(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The same of a decoder, whose tied matrix is stored twice as in the published files."""
    state = prefixed(network, prefix)
    return {**state, f"{prefix}tgt_word_prj.weight": state[f"{prefix}tgt_word_emb.weight"]}


def publish(
    folder: Path,
    args: Mapping[str, Any],
    state: Mapping[str, Tensor] | None,
    *,
    files: Sequence[Path] = (),
    dictionary: Sequence[str] | None = None,
    dictionary_name: str = "dict.txt",
    half: bool = False,
    name: str = PUBLISHED_NAME,
    kind: str | None = None,
) -> Path:
    """Write a model folder.

    Args:
        folder: made if needed; files of the same names are replaced.
        args: hyper-parameters under their published names, plain values.
        state: weights under their published keys; None = a file of hyper-parameters alone.
        files: to copy beside the weights (cmvn.ark, train_bpe1000.model …).
        dictionary: tokens or labels by id; None = no dictionary.
        dictionary_name: "dict.txt", or "out_dict" for punctuation.
        half: keep matrices in float16, which halves the file; vectors (norms, biases) stay as they are.
        name: of the file with the weights.
        kind: what the published folder of such a model is called ("FireRedASR2-AED"), so that it is known under any
            name; None = not said.

    Returns:
        The folder.

    Raises:
        TrainingError: a hyper-parameter is no plain value, a weight is not finite, or a file cannot be written.
    """
    for key, value in args.items():
        if not isinstance(value, PLAIN):
            raise TrainingError(f"the hyper-parameter {key} is {value!r}; published files hold plain values only")
    content: dict[str, Any] = {"args": argparse.Namespace(**args)}
    if state is not None:
        content["model_state_dict"] = {key: _stored(key, tensor, half) for key, tensor in state.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _save(folder / name, content)
        if kind is not None:
            (folder / KIND_FILE).write_text(kind + "\n", encoding="utf8")
        if dictionary is not None:
            write_dictionary(folder / dictionary_name, dictionary)
        for file in files:
            if file.resolve() != (folder / file.name).resolve():
                shutil.copyfile(file, folder / file.name)
    except (OSError, RuntimeError) as error:
        raise TrainingError(f"cannot write the model to {folder}: {reason(error, folder)}") from error
    return folder


def _stored(key: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise TrainingError(f"the weight {key} is not finite: the training went wrong before")
    # a copy of its own: torch.save would write the whole storage of a view
    return tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor.clone()


def _save(place: Path, content: dict[str, Any]) -> None:
    temporary = place.with_name(place.name + ".part")
    try:
        save_synced(temporary, content)
    except (OSError, RuntimeError):
        temporary.unlink(missing_ok=True)  # it would keep a full disk full
        raise
    temporary.replace(place)


def write_dictionary(path: Path, tokens: Sequence[str]) -> None:
    """Write a dictionary in the published form: one "token index" per line; a blank is `<space>`.

    Raises:
        TrainingError: a token occurs twice, or could not be read back.
    """
    lines = []
    for index, token in enumerate(tokens):
        written = "<space>" if token == " " else token
        if not written or written != "".join(written.split()):
            raise TrainingError(f"the token {token!r} holds white space and cannot stand in a dictionary")
        lines.append(f"{written} {index}\n")
    if len(set(tokens)) != len(tokens):
        raise TrainingError("a token occurs twice in the dictionary")
    path.write_text("".join(lines), encoding="utf8")
