"""Rows of a corpus as Parquet: what every row has are columns, the rest is JSON text; `row` holds the whole of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vermilion.cluster.rows import Row
from vermilion.errors import missing

AS_JSON = ("manifest", "provenance", "failures", "models")
"""columns without a fixed shape"""
_GROUP = 32 << 20
"""characters of JSON in a row group"""
_BATCH = 256
"""rows that are read at once"""


def arrow() -> Any:
    """The pyarrow package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing("Parquet needs pyarrow", "parquet") from error
    return pyarrow


def schema() -> Any:
    """Arrow schema of a table of transcripts."""
    pa = arrow()
    texts, whole, real = pa.string(), pa.int64(), pa.float64()
    stretch = [("start_ms", whole), ("end_ms", whole)]
    sentence = [*stretch, ("text", texts), ("asr_confidence", real), ("lang", texts), ("lang_confidence", real)]
    sentence.append(("flags", pa.list_(texts)))
    word = [*stretch, ("text", texts), ("confidence", real)]
    return pa.schema(
        [
            ("id", texts),
            ("uttid", texts),
            ("text", texts),
            ("sentences", pa.list_(pa.struct(sentence))),
            ("vad_segments_ms", pa.list_(pa.list_(whole))),
            ("dur_s", real),
            ("words", pa.list_(pa.struct(word))),
            ("wav_path", texts),
            ("events", pa.list_(pa.struct([("label", texts), *stretch]))),
            ("languages", pa.list_(pa.struct([*stretch, ("lang", texts), ("confidence", real)]))),
            ("flags", pa.list_(texts)),
            ("warnings", pa.list_(texts)),
            *((name, texts) for name in AS_JSON),
            ("row", texts),
        ]
    )


def write_table(rows: Iterable[Row], target: Path) -> None:
    """Write rows as one Parquet file; it is on the disk when this returns.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pa = arrow()
    with pa.parquet.ParquetWriter(target, schema(), compression="zstd") as writer:
        for group in _groups(map(_columns, rows)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema()))
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _groups(columns: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows that are in memory together: transcripts of long recordings have megabytes."""
    group: list[dict[str, Any]] = []
    size = 0
    for found in columns:
        group.append(found)
        size += len(found["row"])
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def rows_of(path: Path) -> Iterator[Row]:
    """The rows that a file of `write_table` was made of."""
    for batch in arrow().parquet.ParquetFile(path).iter_batches(_BATCH, columns=["row"]):
        yield from (json.loads(text) for text in batch.column(0).to_pylist())


def ids_of(path: Path) -> Iterator[str]:
    """Ids of its rows."""
    for batch in arrow().parquet.ParquetFile(path).iter_batches(columns=["id"]):
        yield from batch.column(0).to_pylist()


def _columns(row: Row) -> dict[str, Any]:
    known = {name: value for name, value in row.items() if name not in AS_JSON}
    return {**known, **{name: _json(row[name]) for name in AS_JSON if name in row}, "row": _json(row)}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
