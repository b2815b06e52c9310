"""Reads model folders in the published layout with safe loaders only (SPEC section 2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.checkpoints.pickled import Checkpoint as Checkpoint
from vermilion.checkpoints.pickled import read_pickled as read_pickled
from vermilion.errors import CheckpointError

if TYPE_CHECKING:
    import torch

PUBLISHED_NAME = "model.pth.tar"
CONVERTED_SUFFIX = ".safetensors"
CONSTANT = ("*positional_encoding.pe", "*position_ids", "*bert.pooler.*", "*num_batches_tracked")
"""patterns of keys that no network of ours needs: tables by formula, counters, layers that nothing reads"""


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


def require_file(path: str | Path) -> Path:
    """Return a path if it is a plain file: a pipe of that name would keep its reader waiting for ever.

    Raises:
        CheckpointError: it is missing or something else.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"cannot read {file}: " + ("it is no file" if file.exists() else "it is missing"))
    return file


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds one object, such as `config.json`.

    Raises:
        CheckpointError: it is missing, damaged or holds something else.
    """
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no settings")
    return data


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file; a byte-order mark is passed over.

    Raises:
        CheckpointError: it is missing, no plain file, or no text.
    """
    file = require_file(path)
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error


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
    if not published.is_file():  # a pipe of that name would keep us waiting
        require_files(folder, [name])
        raise CheckpointError(f"{published} is not a file")
    return read_pickled(published)


def converted_path(published: Path) -> Path:
    """`model.pth.tar` → `model.safetensors`."""
    return published.with_name(published.name.removesuffix(".pth.tar") + CONVERTED_SUFFIX)


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            settings = json.loads((file.metadata() or {}).get("args", "{}"))
            if not isinstance(settings, dict):
                raise CheckpointError(
                    f"{path} has hyper-parameters of the type {type(settings).__name__}; convert again"
                )
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
        ignore: patterns of keys in the file that the network does not need, beside `CONSTANT`.
        dtype: convert floating-point tensors to this type.

    Raises:
        CheckpointError: names every missing, unexpected and wrongly shaped key.
    """
    patterns = [*CONSTANT, *ignore]
    own = module.state_dict()
    given = {k: v for k, v in state.items() if k in own or not any(fnmatch(k, p) for p in patterns)}
    problems = key_problems(*({k: tuple(v.shape) for k, v in state.items()} for state in (own, given)))
    if problems:
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: " + "; ".join(problems))
    tensors = {k: v.to(dtype) if dtype is not None and v.is_floating_point() else v for k, v in given.items()}
    module.load_state_dict(tensors, strict=True, assign=True)


def without_constants(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that networks need, those that match `CONSTANT` left out."""
    return {key: tensor for key, tensor in state.items() if not any(fnmatch(key, p) for p in CONSTANT)}


def key_problems(own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> list[str]:
    """In what the shapes that a file holds differ from those that a network asks for, in plain words."""
    problems = []
    if missing := sorted(own.keys() - given.keys()):
        problems.append("missing " + _listed(missing))
    if unexpected := sorted(given.keys() - own.keys()):
        problems.append("unexpected " + _listed(unexpected))
    for key in sorted(own.keys() & given.keys()):
        if own[key] != given[key]:
            problems.append(f"{key} has shape {given[key]} instead of {own[key]}")
    return problems


def _listed(keys: list[str], most: int = 12) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def read_dictionary(path: str | Path, size: int | None = None) -> list[str]:
    """Read a token dictionary (SPEC section 2): `dict.txt`, `out_dict` or a BERT vocabulary.

    Args:
        path: the file; a byte-order mark is passed over.
        size: entries that the network has; an empty last line beyond them is none.

    Returns:
        The tokens by index; an empty line and `<space>` mean one space.

    Raises:
        CheckpointError: an index differs from its line number, a token occurs twice, there are more or fewer than
            `size`, or the file is no text.
    """
    file = Path(path)
    lines = read_text(file).removesuffix("\n").split("\n")  # splitlines() cuts at U+2028 too
    if size is not None and len(lines) == size + 1 and not lines[-1].strip():
        lines.pop()
    tokens = [_dictionary_entry(file, number, line) for number, line in enumerate(lines)]
    if len(set(tokens)) != len(tokens):
        repeated = next(t for i, t in enumerate(tokens) if t in tokens[:i])
        raise CheckpointError(f"{file} lists the token {repeated!r} twice")
    if size is not None and len(tokens) != size:
        raise CheckpointError(f"{file} has {len(tokens)} entries, the model {size}: they do not belong together")
    return tokens


def _dictionary_entry(file: Path, number: int, line: str) -> str:
    columns = line.split()
    if len(columns) > 1 and columns[1] != str(number):
        raise CheckpointError(f"{file}, line {number + 1}: index {columns[1]} where {number} is expected")
    token = columns[0] if columns else " "
    return " " if token == "<space>" else token
