"""Rewrites published weight files as safetensors, which load in a second through a memory map (SPEC section 2)."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.checkpoints.reader import Checkpoint, converted_path, without_constants
from vermilion.checkpoints.reader import read_pickled as read_pickled
from vermilion.errors import CheckpointError, OptionsError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PRECISIONS = ("float32", "float16", "bfloat16")
_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def convert(folder: str | Path, *, target: str | Path | None = None, dtype: str | None = None) -> list[Path]:
    """Convert every `*.pth.tar` of a model folder, or of the folders in it, to safetensors.

    One tensor is in memory at a time; a file takes its name only after it was read back and compared. Files
    converted before are kept if they fit their source. Hugging Face folders inside a model are left alone.

    Args:
        folder: model folder, or a directory of them.
        target: directory that gets a complete model folder of its own; None = the new files stand beside the old.
        dtype: "float32", "float16" or "bfloat16" for the floating-point tensors; None = as they are.

    Returns:
        The converted files, in the order of their names.

    Raises:
        CheckpointError: nothing to convert, a damaged source, or the target cannot be written.
        OptionsError: an unknown dtype.
    """
    if dtype is not None and dtype not in PRECISIONS:
        raise OptionsError(f"dtype must be one of {', '.join(PRECISIONS)}, not {dtype!r}")
    root = Path(folder).expanduser()
    sources = sorted(root.rglob("*.pth.tar"))
    if not sources:
        raise CheckpointError(f"{root} holds no *.pth.tar to convert")
    base = root if target is None else Path(target).expanduser()
    try:
        written = [_converted(s, converted_path(base / s.relative_to(root)), dtype) for s in sources]
        if base.resolve() != root.resolve():
            _bring_companions(root, base)
    except OSError as error:
        raise CheckpointError(f"cannot write below {base}: {error}") from error
    return written


def _converted(source: Path, path: Path, dtype: str | None) -> Path:
    if _is_fresh(path, source, dtype):
        return path
    checkpoint = read_pickled(source)
    state = _kept(checkpoint.state)
    metadata = {
        "format": "pt",
        "args": json.dumps(checkpoint.args, default=str, ensure_ascii=False),
        "source": source.name,
        "source_bytes": str(source.stat().st_size),
        "dtype": dtype or "",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_safetensors(temporary, state, metadata, dtype)
        _verify(temporary, checkpoint, state, dtype)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _is_fresh(path: Path, source: Path, dtype: str | None) -> bool:
    """Tell whether a file converted before still fits its source."""
    from safetensors import SafetensorError, safe_open

    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        return False
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return False
    return metadata.get("source_bytes") == str(source.stat().st_size) and metadata.get("dtype") == (dtype or "")


def _kept(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(sorted(without_constants(state).items()))


def _cast(tensor: torch.Tensor, dtype: str | None) -> torch.Tensor:
    import torch

    if dtype is None or not tensor.is_floating_point():
        return tensor
    kind: torch.dtype = getattr(torch, dtype)
    return tensor.to(kind)


def write_safetensors(
    path: Path, state: Mapping[str, torch.Tensor], metadata: dict[str, str], dtype: str | None = None
) -> None:
    """Write the safetensors layout tensor by tensor: u64 header length, JSON header, data.

    The package's own writer holds a copy of the whole model.

    Args:
        path: new file.
        state: tensors by key.
        metadata: text that the header carries.
        dtype: convert floating-point tensors to this type; None = as they are.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for key, tensor in state.items():
        kind = dtype if dtype is not None and tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
        if kind not in _CODES:
            raise CheckpointError(f"{key} has the type {kind}, which safetensors cannot hold")
        size = tensor.numel() * _width(_CODES[kind])
        header[key] = {"dtype": _CODES[kind], "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begin on a multiple of 8
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in state.values():
            file.write(_raw(_cast(tensor, dtype)).data)
        file.flush()
        os.fsync(file.fileno())


def _width(code: str) -> int:
    return 1 if code == "BOOL" else int(code.lstrip("BFIU")) // 8


def _raw(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Bytes of a tensor without a copy where it is contiguous."""
    import torch

    raw: NDArray[np.uint8] = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return raw


def _verify(path: Path, checkpoint: Checkpoint, state: Mapping[str, torch.Tensor], dtype: str | None) -> None:
    import numpy as np
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != set(state):
            raise CheckpointError(f"the conversion of {checkpoint.path} reads back with other keys; nothing was kept")
        for key, tensor in state.items():
            if not np.array_equal(_raw(file.get_tensor(key)), _raw(_cast(tensor, dtype))):  # bytes: NaN equals NaN
                raise CheckpointError(f"{key} of {checkpoint.path} reads back differently; nothing was kept")


def _companions(root: Path) -> Iterator[Path]:
    for file in root.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)  # prepared weights among them
        if hidden or not file.is_file() or _is_conversion(file):
            continue
        if not file.name.endswith((".pth.tar", ".part", ".lock")):
            yield file


def _is_conversion(file: Path) -> bool:
    return file.with_suffix("").with_suffix(".pth.tar").exists() and file.suffix == ".safetensors"


def _bring_companions(root: Path, base: Path) -> None:
    """Give a new model folder the files that stand beside the weights: linked where possible, else copied."""
    for file in _companions(root):
        place = base / file.relative_to(root)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), place)
        except OSError:
            shutil.copy2(file, place)
