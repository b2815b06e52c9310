"""Training checkpoints: everything from which a training goes on exactly, bit for bit on a CPU.

A file holds what is trained (frozen weights come from where the recipe took them), the optimiser, the moving average,
all random states of all processes, and the place in the data. It is written in one step and read without unpickling
code.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vermilion.errors import TrainingError

FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8,})\.pt")
_FORMAT = 1


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A moment of a training."""

    step: int
    """updates done"""
    epoch: int
    index: int
    """batches of this epoch that were used: the next one is number `index`"""
    weights: dict[str, Tensor]
    """trained parameters and buffers by name"""
    optimizer: dict[str, Any]
    average: dict[str, Tensor] | None = None
    """exponential moving average of the weights"""
    scaler: dict[str, Any] = field(default_factory=dict)
    """gradient scaler (float16 only)"""
    random_states: list[dict[str, Any] | None] = field(default_factory=list)
    """one per process; None = it could not be asked any more"""
    settings: dict[str, Any] = field(default_factory=dict)
    """what must not change between the parts of a training"""
    seconds: float = 0.0
    """time spent so far"""
    means: dict[str, Any] = field(default_factory=dict)
    """sums since the last line of the log"""
    data: dict[str, Any] = field(default_factory=dict)
    """size and digest of the data"""


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """What a training changes: parameters with gradients, and buffers."""
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in frozen}


def load_trained_state(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Put trained weights back.

    Raises:
        TrainingError: they are those of another network.
    """
    own = trained_state(network)
    if own.keys() != weights.keys() or any(own[k].shape != weights[k].shape for k in own):
        odd = sorted(own.keys() ^ weights.keys())[:3] or "other shapes"
        raise TrainingError(f"{source} is a checkpoint of another network ({odd}): use another output_dir")
    network.load_state_dict(dict(weights), strict=False)


def random_state() -> dict[str, Any]:
    """All random states of this process, as plain values and tensors."""
    version, keys, gauss = random.getstate()
    _, words, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(words, np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(keys), gauss],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on with random states saved before."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    words, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", words.numpy().astype(np.uint32), position, has_gauss, cached))
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))


def write_training_checkpoint(output_dir: Path, checkpoint: TrainingCheckpoint, keep: int) -> Path:
    """Write a checkpoint in one step and delete the oldest ones.

    Args:
        output_dir: of the training.
        checkpoint: what to write.
        keep: how many files stay.

    Returns:
        Its path, `checkpoints/step-NNNNNNNN.pt`.

    Raises:
        TrainingError: the file cannot be written (the disk is full, say).
    """
    folder = output_dir / FOLDER
    place = folder / f"step-{checkpoint.step:08d}.pt"
    temporary = place.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_synced(temporary, {"format": _FORMAT, **vars(checkpoint)})
        temporary.replace(place)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # it would keep a full disk full
        raise TrainingError(f"cannot write the checkpoint {place}: {reason(error, folder)}") from error
    for old in training_checkpoints(output_dir)[:-keep]:
        with suppress(OSError):
            old.unlink()
    return place


class _Noting:
    """A file for torch.save, which turns what the system says into a riddle of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_synced(place: Path, content: Any) -> None:
    """Save with torch and bring it to the disk.

    Raises:
        OSError: the system's own, a full disk among them.
        RuntimeError: torch could not.
    """
    with place.open("wb") as file:
        noting = _Noting(file)
        try:
            torch.save(content, cast(IO[bytes], noting))
        except RuntimeError:
            if noting.error is not None:
                raise noting.error from None
            raise
        file.flush()
        os.fsync(file.fileno())


def reason(error: Exception, folder: Path) -> str:
    """What the system said, in words; of a full disk also how much is left."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error.strerror or str(error)
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
        return f"no space left on the disk ({free / 1e6:.1f} MB free); make room, and give the same command again"
    return "no space left on the disk"


def training_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a training, oldest first."""
    found = [(int(m[1]), p) for p in (output_dir / FOLDER).glob("step-*.pt") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found)]


def read_training_checkpoint(path: Path) -> TrainingCheckpoint:
    """Read a checkpoint; no code of the file is run.

    Raises:
        TrainingError: it is missing, damaged, or no such checkpoint.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise TrainingError(f"cannot read the checkpoint {path}: {error}; delete it to go on from the last") from error
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise TrainingError(f"{path} is no training checkpoint of this version")
    return TrainingCheckpoint(**data)
