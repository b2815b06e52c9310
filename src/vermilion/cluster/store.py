"""The output folder of a corpus job: every row is written once, whatever happens in between.

A finished row is appended to the open part (`parts/part-000007.open`), a failure to `failures.jsonl`. A full part is
sealed: its ids are written beside it, then it becomes `part-000007.jsonl` by a rename, or `.parquet` by a rename of a
finished file after which the open part is removed. What a kill leaves behind is put right at the next start: a line
without an end is cut off, an open part whose sealed form exists is removed, anything half-made (`.tmp`) too. So nothing
is lost and nothing is there twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from filelock import FileLock, Timeout

from vermilion.cluster.rows import Row, bytes_of, line_of
from vermilion.errors import FormatError, OptionsError

Form = Literal["jsonl", "parquet"]
FAILURES, RUN, PARTS, LOCK, SALT = "failures.jsonl", "run.json", "parts", ".lock", ".salt"
_SYNC_SECONDS = 1.0
"""a crash of the whole machine (not of the program) costs at most what was finished in this time"""
_PART = re.compile(r"part-(\d{6,})\.(open|jsonl|parquet)$")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What the system says about a disk or a folder, in our words."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else error.strerror or error
        raise FormatError(f"cannot write to {folder}: {what}; run the same command when that is put right") from error


def key_of(name: str) -> int:
    """What is remembered of a finished item: 64 bits of its id."""
    return int.from_bytes(hashlib.blake2b(bytes_of(name), digest_size=8).digest(), "little")


def check_free(folder: Path) -> None:
    """Refuse a folder that another process writes to, before models are loaded for it.

    Raises:
        OptionsError: one does.
        FormatError: it cannot be written.
    """
    if not (folder / LOCK).exists():
        return
    with _writing(folder):
        try:
            with FileLock(folder / LOCK).acquire(timeout=0):
                return
        except Timeout as error:
            raise OptionsError(_TAKEN.format(folder=folder)) from error


_TAKEN = "another process is writing to {folder}; wait for it or name another folder"


class Store:
    """Rows of a corpus job in a folder that belongs to one process at a time."""

    def __init__(self, folder: Path, form: Form, settings: Mapping[str, Any], rows_per_part: int = 1000) -> None:
        """Open or make the folder and put right what an earlier run left.

        Args:
            folder: of the outputs.
            form: of the sealed parts.
            settings: what all rows of the folder must share; plain values.
            rows_per_part: when a part is sealed.

        Raises:
            OptionsError: another process works in it, or it was begun with other settings.
            FormatError: it cannot be written, or a file in it is damaged.
        """
        self.folder, self.form, self.rows_per_part = folder, form, rows_per_part
        self.parts = folder / PARTS
        self._lock = FileLock(folder / LOCK)
        with _writing(folder):
            self.parts.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise OptionsError(_TAKEN.format(folder=folder)) from error
            try:
                self._check(dict(settings))
                self.done: set[int] = set()
                self.rows = self.failures = 0
                self._recover()
            except BaseException:
                self._lock.release()
                raise

    # ---- beginning

    def _check(self, settings: dict[str, Any]) -> None:
        place, wanted = self.folder / RUN, json.loads(json.dumps(settings, default=str))
        if not place.exists():
            _write_whole(place, json.dumps(wanted, ensure_ascii=False, indent=1))
            return
        try:
            found = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FormatError(f"{place} cannot be read: {error}; name another folder") from error
        changed = list(_differences(found, wanted))
        if changed:
            raise OptionsError(
                f"{self.folder} was begun with other settings ({'; '.join(changed)}): use the same, or another folder"
            )

    def _recover(self) -> None:
        for half_made in [*self.folder.glob("*.tmp"), *self.parts.glob("*.tmp")]:
            half_made.unlink()
        numbers: dict[int, set[str]] = {}
        for path in self.parts.iterdir():
            if match := _PART.match(path.name):
                numbers.setdefault(int(match[1]), set()).add(match[2])
        self._number = 0
        for number, forms in sorted(numbers.items()):
            sealed = forms - {"open"}
            if not sealed:
                self._number = number  # parts before it may have been carried off
                continue
            if "open" in forms:
                self._path(number, "open").unlink()
            self.rows += self._know(number, sealed.pop())
            self._number = number + 1
        self._open_part()
        self._failed = (self.folder / FAILURES).open("ab")
        for name in _ids(_mended(self.folder / FAILURES)):
            self.done.add(key_of(name))
            self.failures += 1
        self._failed.seek(0, os.SEEK_END)
        self._synced = time.monotonic()

    def _open_part(self) -> None:
        path = self._path(self._number, "open")
        self._part: IO[bytes] = path.open("ab")
        self._keys = array("Q", (key_of(name) for name in _ids(_mended(path))))
        self._part.seek(0, os.SEEK_END)
        self.done.update(self._keys)
        self.rows += len(self._keys)

    def _know(self, number: int, form: str) -> int:
        """Remember the items of a sealed part."""
        keys = array("Q")
        beside = self._path(number, "ids")
        if beside.exists() and beside.stat().st_size % keys.itemsize == 0:
            keys.frombytes(beside.read_bytes())
        else:
            keys.extend(key_of(name) for name in part_ids(self._path(number, form)))
        self.done.update(keys)
        return len(keys)

    def salt(self) -> str:
        """Of this folder's hashes of paths: made once, kept beside the rows, not for those who get the rows."""
        place = self.folder / SALT
        if not place.exists():
            with _writing(self.folder):
                _write_whole(place, secrets.token_hex(16))
                place.chmod(0o600)
        return place.read_text(encoding="utf-8")

    # ---- work

    def __contains__(self, name: str) -> bool:
        """Tell whether an item is finished or has failed for good."""
        return key_of(name) in self.done

    def add(self, found: Row) -> None:
        """Write the row of a finished item."""
        self._keep(self._part, found)
        self._keys.append(key_of(found["id"]))
        self.rows += 1
        if len(self._keys) >= self.rows_per_part:
            self.seal()

    def fail(self, found: Row) -> None:
        """Write the row of an item that failed."""
        self._keep(self._failed, found)
        self.failures += 1

    def _keep(self, file: IO[bytes], found: Row) -> None:
        with _writing(self.folder):
            file.write(bytes_of(line_of(found)) + b"\n")
            file.flush()
        self.done.add(key_of(found["id"]))
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring everything to the disk."""
        with _writing(self.folder):
            for file in (self._part, self._failed):
                os.fsync(file.fileno())
        self._synced = time.monotonic()

    def seal(self) -> None:
        """Close the open part, if it has rows, and begin the next one."""
        if not len(self._keys):
            return
        self.sync()
        with _writing(self.folder):
            self._seal()

    def _seal(self) -> None:
        self._part.close()
        number, path = self._number, self._path(self._number, "open")
        _write_whole(self._path(number, "ids"), self._keys.tobytes())
        if self.form == "jsonl":
            path.rename(self._path(number, "jsonl"))
        else:
            fresh = self._path(number, "parquet.tmp")
            from vermilion.cluster.tables import write_table

            with path.open("rb") as lines:
                write_table(map(json.loads, lines), fresh)
            fresh.rename(self._path(number, "parquet"))
            path.unlink()
        _sync_folder(self.parts)
        self._number += 1
        self._open_part()

    def close(self) -> None:
        """Give the folder back; what is open stays open for the next run."""
        if not self._lock.is_locked:
            return
        try:
            if not self._part.closed:
                self.sync()
        finally:
            for file in (self._part, self._failed):
                with suppress(OSError):  # a full disk: the row that is lost is done again
                    file.close()
            self._lock.release()

    def finish(self) -> None:
        """Seal the last part: all items are through."""
        self.seal()
        self._path(self._number, "open").unlink(missing_ok=True)  # while the folder is ours
        self.close()

    def retry_failures(self) -> int:
        """Forget the items that failed, so that they are tried again; how many they were."""
        self._failed.close()
        names = list(_ids(self.folder / FAILURES))
        with _writing(self.folder):
            _write_whole(self.folder / FAILURES, b"")
            self._failed = (self.folder / FAILURES).open("ab")
        self.done.difference_update(key_of(name) for name in names)
        self.failures = 0
        return len(names)

    def _path(self, number: int, form: str) -> Path:
        return self.parts / f"part-{number:06d}.{form}"


def read_rows(folder: str | Path) -> Iterator[Row]:
    """All finished rows of an output folder, sealed or not, part by part; a job may be writing to it.

    Raises:
        FormatError: a part cannot be read.
    """
    for path in sorted((Path(folder) / PARTS).iterdir()):
        match = _PART.match(path.name)
        if match is None or (match[2] == "open" and _is_sealed(path)):
            continue
        if match[2] == "parquet":
            from vermilion.cluster.tables import rows_of

            yield from rows_of(path)
        else:
            with path.open("rb") as lines:
                yield from (json.loads(line) for line in lines if line.endswith(b"\n"))  # else in the making


def _is_sealed(path: Path) -> bool:
    """Tell whether a kill left an open part beside its sealed form."""
    return any(path.with_suffix(f".{form}").exists() for form in ("jsonl", "parquet"))


def part_ids(path: Path) -> Iterator[str]:
    """Ids of a sealed part.

    Raises:
        FormatError: it cannot be read.
    """
    if path.suffix != ".parquet":
        yield from _ids(path)
        return
    from vermilion.cluster.tables import ids_of

    yield from ids_of(path)


def _differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """What differs between two settings, by name."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif found != wanted:
        yield f"{name}: {json.dumps(found, ensure_ascii=False)} then, {json.dumps(wanted, ensure_ascii=False)} now"


def _ids(path: Path) -> Iterator[str]:
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield str(json.loads(line)["id"])
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(
                    f"{path}, line {number} is damaged: {error}; restore it or name another folder"
                ) from error


def _mended(path: Path) -> Path:
    """Cut off a last line that has no end: its item was not finished."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
    return path


def _write_whole(path: Path, content: str | bytes) -> None:
    fresh = path.with_name(path.name + ".tmp")
    with fresh.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
