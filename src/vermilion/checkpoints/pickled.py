"""Reads `*.pth.tar` files without running anything that they hold (SPEC section 2)."""

from __future__ import annotations

import argparse
import logging
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.errors import CheckpointError

if TYPE_CHECKING:
    import torch

ARGS_ONLY = frozenset({"asr_encoder.pth.tar"})
"""files that may hold hyper-parameters alone: the encoder's weights of the published LLM lie in model.pth.tar"""
_LFS_POINTER = b"version https://git-lfs"
_PICKLE = b"\x80"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The content of one model file."""

    path: Path
    args: dict[str, Any]
    """hyper-parameters, as the training script stored them"""
    state: dict[str, torch.Tensor]
    parts: tuple[Path, ...] = ()
    """files that it was put together from, where there are several"""
    remarks: tuple[str, ...] = ()
    """what was unusual about the file, in plain words"""

    def arg(self, name: str) -> Any:
        """Return a hyper-parameter or say which one the file lacks."""
        if name not in self.args:
            known = ", ".join(sorted(self.args))
            raise CheckpointError(f"{self.path} lacks the hyper-parameter '{name}' (it has: {known})")
        return self.args[name]


class Foreign:
    """Stands for an object of an unknown class in a pickle: it takes everything and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Foreign:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Ignore the content."""


def read_pickled(path: Path) -> Checkpoint:
    """Read a `*.pth.tar` file through the restricted unpickler.

    Objects of unknown classes in the hyper-parameters (a `pathlib.Path`, a numpy scalar) are replaced by inert
    ones, and the fields that hold them are left out and named in `remarks`.

    Raises:
        CheckpointError: the file is damaged, of another kind, a pointer of Git LFS, or its tensors need code.
    """
    data, foreign = _unpickled(path)
    if not isinstance(data, dict) or ("model_state_dict" not in data and path.name not in ARGS_ONLY):
        raise CheckpointError(f"{path} has no 'model_state_dict': not a FireRedASR2S checkpoint")
    settings, dropped = _settings(path, data.get("args"))
    remarks = []
    if foreign:
        remarks.append(f"holds objects of the classes {', '.join(foreign)}, which were not loaded")
    if dropped:
        remarks.append(f"its hyper-parameters {', '.join(dropped)} are no plain values and were left out")
    for remark in remarks:
        log.warning("%s %s", path, remark)
    return Checkpoint(path, settings, _tensors(path, data.get("model_state_dict", {})), (), tuple(remarks))


def _unpickled(path: Path) -> tuple[Any, list[str]]:
    """The content of the file and the names of the classes that were replaced by `Foreign`."""
    import torch

    is_zip = _is_zip(path)
    try:
        try:
            return _load(path, is_zip, ()), []
        except pickle.UnpicklingError:
            if not is_zip:
                raise
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
            foreign = [name for name in names if name != "argparse.Namespace"]
            return _load(path, is_zip, foreign), foreign
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain settings, which is unsafe: {error}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; fetch it again") from error


def _load(path: Path, is_zip: bool, foreign: Iterable[str]) -> Any:
    import torch

    holders = [(type("Foreign", (Foreign,), {}), name) for name in foreign]
    with torch.serialization.safe_globals([argparse.Namespace, *holders]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def _is_zip(path: Path) -> bool:
    """Tell today's format of torch.save from that before version 1.6.

    Raises:
        CheckpointError: it is neither.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if start == _LFS_POINTER:
        raise CheckpointError(
            f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` there, or `vermilion pull`"
        )
    if zipfile.is_zipfile(path):
        return True
    if start.startswith(_PICKLE):
        return False
    raise CheckpointError(f"{path} is not a checkpoint (cut short, or another kind of file); fetch it again")


def _settings(path: Path, args: object) -> tuple[dict[str, Any], list[str]]:
    """Hyper-parameters of plain values, and the names of the others."""
    if isinstance(args, Foreign):
        raise CheckpointError(f"{path} holds more than tensors and plain settings, which is unsafe: its args are code")
    found = vars(args) if isinstance(args, argparse.Namespace) else args or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} has hyper-parameters of the type {type(args).__name__}: another kind of file")
    dropped = sorted(str(key) for key, value in found.items() if _is_foreign(value))
    return {str(k): v for k, v in found.items() if str(k) not in dropped}, dropped


def _is_foreign(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_is_foreign(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_is_foreign, value))
    return isinstance(value, (Foreign, argparse.Namespace)) and (
        isinstance(value, Foreign) or any(map(_is_foreign, vars(value).values()))
    )


def _tensors(path: Path, state: object) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{path} has a 'model_state_dict' of the type {type(state).__name__}: another kind of file"
        )
    if strange := sorted(str(key) for key, value in state.items() if _is_foreign(value)):
        raise CheckpointError(f"{path}: the weights {', '.join(strange[:4])} need code to be read, which is unsafe")
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
