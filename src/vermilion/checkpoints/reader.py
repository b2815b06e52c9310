"""Reads model folders in the published layout with safe loaders only (SPEC section 2)."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.errors import CheckpointError

if TYPE_CHECKING:
    import torch

PUBLISHED_NAME = "model.pth.tar"
CONVERTED_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The content of one model file."""

    path: Path
    args: dict[str, Any]
    """hyper-parameters, as the training script stored them"""
    state: dict[str, torch.Tensor]
    parts: tuple[Path, ...] = ()
    """files that it was put together from, where there are several"""

    def arg(self, name: str) -> Any:
        """Return a hyper-parameter or say which one the file lacks."""
        if name not in self.args:
            known = ", ".join(sorted(self.args))
            raise CheckpointError(f"{self.path} lacks the hyper-parameter '{name}' (it has: {known})")
        return self.args[name]


def require_files(folder: str | Path, names: Iterable[str]) -> Path:
    """Return the folder as a path if it holds all named files.

    Raises:
        CheckpointError: the folder or some of the files are missing; the message names them.
    """
    path = Path(folder)
    if not path.is_dir():
        raise CheckpointError(f"no model folder at {path}; `vermilion models` lists what is present")
    missing = [n for n in names if not (path / n).exists()]
    if missing:
        present = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
        raise CheckpointError(f"{path} lacks {', '.join(missing)} (it holds: {present})")
    return path


def read_checkpoint(folder: str | Path, name: str = PUBLISHED_NAME) -> Checkpoint:
    """Read a published model file, or its safetensors conversion if that lies beside it.

    Args:
        folder: model folder.
        name: published file name; `model.safetensors` beside `model.pth.tar` is preferred (memory-mapped).

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or holds code.
    """
    published = Path(folder) / name
    converted = converted_path(published)
    if converted.exists():
        return _read_safetensors(converted)
    if not published.exists():
        require_files(folder, [name])
    return read_pickled(published)


def converted_path(published: Path) -> Path:
    """`model.pth.tar` → `model.safetensors`."""
    return published.with_name(published.name.removesuffix(".pth.tar") + CONVERTED_SUFFIX)


def read_pickled(path: Path) -> Checkpoint:
    """Read a `*.pth.tar` file through the restricted unpickler; `read_checkpoint` is the usual way in."""
    import torch

    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a checkpoint (cut short, or another kind of file); fetch it again")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain settings, which is unsafe: {error}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; fetch it again") from error
    if not isinstance(data, dict) or "model_state_dict" not in data:
        raise CheckpointError(f"{path} has no 'model_state_dict': not a FireRedASR2S checkpoint")
    args = data.get("args")
    settings = vars(args) if isinstance(args, argparse.Namespace) else dict(args or {})
    state = {k: v for k, v in data["model_state_dict"].items() if isinstance(v, torch.Tensor)}
    return Checkpoint(path, settings, state)


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            settings = json.loads((file.metadata() or {}).get("args", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; delete it and convert again") from error
    return Checkpoint(path, settings, state)


def load_strict(
    module: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    source: Path,
    *,
    ignore: Iterable[str] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Give a network its weights; every key and shape must match.

    Args:
        module: network whose parameters and buffers are replaced (built on the meta device or not).
        state: tensors by published key.
        source: file named in messages.
        ignore: patterns of keys in the file that the network does not need (constant tables, tied copies).
        dtype: convert floating-point tensors to this type.

    Raises:
        CheckpointError: names every missing, unexpected and wrongly shaped key.
    """
    patterns = list(ignore)
    own = module.state_dict()
    given = {k: v for k, v in state.items() if k in own or not any(fnmatch(k, p) for p in patterns)}
    problems = _key_problems(own, given)
    if problems:
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: " + "; ".join(problems))
    tensors = {k: v.to(dtype) if dtype is not None and v.is_floating_point() else v for k, v in given.items()}
    module.load_state_dict(tensors, strict=True, assign=True)


def _key_problems(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    problems = []
    if missing := sorted(own.keys() - given.keys()):
        problems.append("missing " + _listed(missing))
    if unexpected := sorted(given.keys() - own.keys()):
        problems.append("unexpected " + _listed(unexpected))
    for key in sorted(own.keys() & given.keys()):
        if own[key].shape != given[key].shape:
            problems.append(f"{key} has shape {tuple(given[key].shape)} instead of {tuple(own[key].shape)}")
    return problems


def _listed(keys: list[str], most: int = 12) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def read_dictionary(path: str | Path) -> list[str]:
    """Read a token dictionary (SPEC section 2): `dict.txt`, `out_dict` or a BERT vocabulary.

    Returns:
        The tokens by index; an empty line and `<space>` mean one blank.

    Raises:
        CheckpointError: an index differs from its line number, a token occurs twice, or the file is no text.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf8").removesuffix("\n").split("\n")  # splitlines() would also cut at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read the dictionary {file}: {error}") from error
    tokens = [_dictionary_entry(file, number, line) for number, line in enumerate(lines)]
    if len(set(tokens)) != len(tokens):
        repeated = next(t for i, t in enumerate(tokens) if t in tokens[:i])
        raise CheckpointError(f"{file} lists the token {repeated!r} twice")
    return tokens


def _dictionary_entry(file: Path, number: int, line: str) -> str:
    columns = line.split()
    if len(columns) > 1 and columns[1] != str(number):
        raise CheckpointError(f"{file}, line {number + 1}: index {columns[1]} where {number} is expected")
    token = columns[0] if columns else " "
    return " " if token == "<space>" else token
