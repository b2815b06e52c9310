"""What a published sequence model holds by its own tensors, held against what its hyper-parameters say.

The tensors win: FireRedLID's file says `n_layers_dec` 16 and holds six decoder layers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vermilion.checkpoints.reader import Checkpoint
from vermilion.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

ENCODER_DEPTH = ("n_layers_enc",)
DECODER_DEPTHS = {"decoder.": ("n_layers_dec",), "lid_decoder.": ("n_layers_lid_dec", "n_layers_dec")}
"""decoder → hyper-parameters that may tell its depth, the first that is there counts"""
LARGEST = 10**7
"""far above any size, vocabulary or id"""
DETECTOR_SIZES = ("idim", "R", "M", "H", "P", "N1", "S1", "N2", "S2", "odim")
_STACK = "layer_stack."
_HEADS = "encoder.layer_stack.0.mhsa.pos_bias_u"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Sizes of a network part, and what its file says otherwise."""

    sizes: dict[str, int]
    """by the names of the hyper-parameters"""
    remarks: tuple[str, ...] = ()
    """contradictions, in plain words"""

    def reported(self, checkpoint: Checkpoint) -> dict[str, int]:
        """The sizes; remarks go to the log."""
        for remark in self.remarks:
            log.warning("%s: %s", checkpoint.path, remark)
        return self.sizes


def encoder_layout(checkpoint: Checkpoint) -> Layout:
    """Sizes of the Conformer encoder (`encoder.`).

    Raises:
        CheckpointError: a size is missing or impossible, or layers are missing.
    """
    sizes = {name: whole_number(checkpoint, name) for name in ("idim", "d_model", "kernel_size")}
    heads, head_remarks = _heads(checkpoint)
    layers, layer_remarks = _depth(checkpoint, "encoder.", ENCODER_DEPTH)
    sizes |= {"n_head": heads, "n_layers_enc": layers}
    if min(sizes.values()) < 1 or sizes["d_model"] % heads or sizes["kernel_size"] % 2 == 0:
        raise CheckpointError(f"{checkpoint.path} has impossible sizes: {sizes}")
    return Layout(sizes, (*head_remarks, *layer_remarks))


def decoder_layout(checkpoint: Checkpoint, prefix: str) -> Layout:
    """Sizes of a Transformer decoder: `d_model`, `n_head`, `n_layers_dec` and `vocabulary`.

    Args:
        checkpoint: of a recogniser or language identifier.
        prefix: "decoder." or "lid_decoder.".

    Raises:
        CheckpointError: a size is missing or impossible, or layers are missing.
    """
    width = whole_number(checkpoint, "d_model")
    heads, _ = _heads(checkpoint)
    if width < 1 or heads < 1 or width % heads:
        raise CheckpointError(f"{checkpoint.path} has impossible sizes: d_model {width}, n_head {heads}")
    layers, remarks = _depth(checkpoint, prefix, DECODER_DEPTHS[prefix])
    vocabulary, more = _vocabulary(checkpoint, prefix)
    tied = _tied_remarks(checkpoint, prefix)
    sizes = {"d_model": width, "n_head": heads, "n_layers_dec": layers, "vocabulary": vocabulary}
    return Layout(sizes, (*remarks, *more, *tied))


def detector_layout(checkpoint: Checkpoint) -> Layout:
    """Sizes of a FireRedVAD network; the number of its memory blocks is that of the file.

    Raises:
        CheckpointError: a size is missing or impossible, or blocks are missing.
    """
    sizes = {name: whole_number(checkpoint, name) for name in DETECTOR_SIZES}
    blocks = 1 + _counted(checkpoint, "dfsmn.fsmns.")
    remarks: tuple[str, ...] = ()
    if blocks != sizes["R"]:
        remarks = (f"R is {sizes['R']}, but the file holds {blocks} memory blocks; the file counts",)
    sizes["R"] = blocks
    sizes["M"] = min(sizes["M"], 1 + len(checkpoint.state))  # what is missing is named, and not for ever
    if min(sizes.values()) < 0 or min(v for k, v in sizes.items() if k not in ("M", "N2", "S2")) < 1:
        raise CheckpointError(f"{checkpoint.path} has impossible sizes: {sizes}")
    return Layout(sizes, remarks)


def tied_output(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """Give embedding and output layer of a decoder one matrix, as the published code does.

    It loads the output layer (`tgt_word_prj`) last into the parameter that both share, so where a file stores two
    that differ, the output layer's counts.
    """
    emb, prj = f"{prefix}tgt_word_emb.weight", f"{prefix}tgt_word_prj.weight"
    if prj not in checkpoint.state:
        return checkpoint
    state = {key: tensor for key, tensor in checkpoint.state.items() if key != prj}
    return replace(checkpoint, state={**state, emb: checkpoint.state[prj]})


def layer_count(keys: Iterable[str], stack: str) -> int:
    """Layers of a stack by its keys.

    Args:
        keys: of a state dictionary.
        stack: what stands before their numbers: "encoder.layer_stack.".

    Raises:
        ValueError: their numbers have holes.
    """
    pattern = re.compile(re.escape(stack) + r"(\d{1,6})\.")
    numbers = {int(match[1]) for key in keys if (match := pattern.match(key))}
    holes = [number for number in range(len(numbers)) if number not in numbers]
    if holes:
        raise ValueError(f"{stack} has no number {', '.join(map(str, holes[:8]))}")
    return len(numbers)


def _counted(checkpoint: Checkpoint, stack: str) -> int:
    try:
        return layer_count(checkpoint.state, stack)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path} lacks layers: {error}; fetch it again") from error


def whole_number(checkpoint: Checkpoint, name: str) -> int:
    """Return a hyper-parameter that must be a size or an id.

    Raises:
        CheckpointError: it is missing, no whole number, or larger than that of any network.
    """
    return whole(checkpoint.arg(name), f"{checkpoint.path}: the hyper-parameter {name}")


def whole(value: object, what: str) -> int:
    """Return a value that must be a whole number of a sane size; errors as `whole_number`.

    Args:
        value: as a file holds it.
        what: what it is, for messages.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not abs(value) <= LARGEST
        or value != int(value)
    ):
        raise CheckpointError(f"{what} is {value!r}, where a whole number of at most {LARGEST} is expected")
    return int(value)


def _depth(checkpoint: Checkpoint, prefix: str, names: Sequence[str]) -> tuple[int, list[str]]:
    held = _counted(checkpoint, prefix + _STACK)
    if not held:
        raise CheckpointError(f"{checkpoint.path} holds no {prefix}{_STACK}*: no weights of that part")
    name = next((n for n in names if n in checkpoint.args), None)
    if name is None or whole_number(checkpoint, name) == held:
        return held, []
    said = whole_number(checkpoint, name)
    return held, [f"{name} is {said}, but the file holds {held} layers of {prefix.rstrip('.')}; the file counts"]


def _heads(checkpoint: Checkpoint) -> tuple[int, list[str]]:
    """`n_head` (never `layer_n_head`, a leftover), held against the position bias (heads, size of a head)."""
    said = whole_number(checkpoint, "n_head")
    bias = checkpoint.state.get(_HEADS)
    if bias is None or bias.ndim != 2 or bias.shape[0] == said:
        return said, []
    return int(bias.shape[0]), [f"n_head is {said}, but the encoder's position bias has {bias.shape[0]} heads"]


def _vocabulary(checkpoint: Checkpoint, prefix: str) -> tuple[int, list[str]]:
    table = _matrix(checkpoint, prefix)
    name = "lid_odim" if prefix == "lid_decoder." else "odim"
    if name not in checkpoint.args:
        return len(table), []
    said = whole_number(checkpoint, name)
    if said == len(table):
        return said, []
    return len(table), [f"{name} is {said}, but the embedding has {len(table)} rows; the embedding counts"]


def _matrix(checkpoint: Checkpoint, prefix: str) -> Tensor:
    for name in ("tgt_word_prj.weight", "tgt_word_emb.weight"):
        if prefix + name in checkpoint.state:
            return checkpoint.state[prefix + name]
    raise CheckpointError(f"{checkpoint.path} lacks {prefix}tgt_word_emb.weight: no weights of that part")


def _tied_remarks(checkpoint: Checkpoint, prefix: str) -> list[str]:
    import torch

    emb, prj = (checkpoint.state.get(f"{prefix}tgt_word_{name}.weight") for name in ("emb", "prj"))
    if emb is None or prj is None or emb.is_meta or torch.equal(emb, prj):
        return []
    return ["tgt_word_prj differs from tgt_word_emb; the published code uses tgt_word_prj for both, and so do we"]
