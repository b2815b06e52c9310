"""Mean and variance statistics of features: the Kaldi binary matrix `cmvn.ark` (SPEC section 1)."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import CheckpointError

VARIANCE_FLOOR = 1e-20
_TYPES: dict[bytes, np.dtype[Any]] = {b"DM ": np.dtype("<f8"), b"FM ": np.dtype("<f4")}
_MAX_BYTES = 64 * 1024 * 1024
"""far above any statistics file; a header that asks for more is damaged or hostile"""


def read_matrix(path: str | Path) -> NDArray[np.float64]:
    """Read a bare Kaldi binary matrix (float64 `DM` or float32 `FM`, no key, no archive header).

    Returns:
        (rows, columns) float64.

    Raises:
        CheckpointError: the file is missing, of another kind, or its size does not fit its header.
    """
    file = Path(path)
    if file.exists() and not file.is_file():  # a pipe of that name would keep us waiting
        raise CheckpointError(f"cannot read the statistics {file}: it is no file")
    try:
        with file.open("rb") as stream:
            return _read_matrix(stream, file)
    except OSError as error:
        raise CheckpointError(f"cannot read the statistics {file}: {error.strerror or error}") from error


def _read_matrix(stream: BinaryIO, file: Path) -> NDArray[np.float64]:
    head = stream.read(15)
    dtype = _TYPES.get(head[2:5])
    if len(head) < 15 or head[:2] != b"\0B" or dtype is None or head[5] != 4 or head[10] != 4:
        raise CheckpointError(f"{file} is not a Kaldi binary matrix (it should begin with \\0B and DM or FM)")
    rows, columns = struct.unpack("<i", head[6:10])[0], struct.unpack("<i", head[11:15])[0]
    size = rows * columns * dtype.itemsize
    if rows < 0 or columns < 0 or size > _MAX_BYTES:
        raise CheckpointError(f"{file} claims {rows} x {columns} numbers, which no statistics file has; fetch it again")
    data = stream.read(size + 1)
    if len(data) != size:
        amount = "fewer" if len(data) < size else "more"
        raise CheckpointError(f"{file} holds {amount} data than the {rows} x {columns} it announces; fetch it again")
    return np.frombuffer(data, dtype).reshape(rows, columns).astype(np.float64)


def write_matrix(path: str | Path, matrix: NDArray[np.floating[Any]]) -> None:
    """Write a bare Kaldi binary matrix of float64, in one step.

    Args:
        path: of the file; its folder is made.
        matrix: (rows, columns); for `read_cmvn` sums and frame count over sums of squares, see there.
    """
    file = Path(path)
    rows, columns = matrix.shape
    head = b"\0BDM " + struct.pack("<bibi", 4, rows, 4, columns)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".part")
    temporary.write_bytes(head + np.asarray(matrix, "<f8").tobytes())
    temporary.replace(file)


def read_cmvn(path: str | Path, bins: int = 80) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read accumulated statistics: sums, frame count and sums of squares in a 2 x (bins + 1) matrix.

    Returns:
        Mean and inverse standard deviation, (bins,) float64 each.

    Raises:
        CheckpointError: the matrix has another shape, no frames, or numbers that are not finite.
    """
    stats = read_matrix(path)
    if stats.shape != (2, bins + 1):
        raise CheckpointError(f"{path} has shape {stats.shape} instead of (2, {bins + 1})")
    count = float(stats[0, -1])
    if not (math.isfinite(count) and count > 0) or not np.isfinite(stats[:, :-1]).all():
        raise CheckpointError(f"{path} holds impossible statistics (frame count {count}); fetch it again")
    mean = stats[0, :-1] / count
    variance = np.maximum(stats[1, :-1] / count - mean**2, VARIANCE_FLOOR)
    return mean, 1.0 / np.sqrt(variance)
