"""Lists of recordings: what people have (NeMo's and WeNet's JSON lines, Kaldi's folders) → `Utterance`s, and back.

Shared by training, evaluation and corpus jobs. Reading is lazy: a manifest of millions of lines costs no memory.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vermilion.errors import AudioError, ManifestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KALDI_WAVES = "wav.scp"
RECORDING_SIDES = "reco2file_and_channel"
_MOST_CHANNELS = 64
BYTES = "audio_bytes"
"""key of [first byte, how many]: the recording is that part of its file, a member of a tar, say"""
_LONGEST = 1e9
"""seconds; far above any recording"""
_LARGEST_PART = 1 << 30
"""bytes; far above any utterance"""
_NAMES = {
    "audio": ("audio_filepath", "wav", "audio"),
    "id": ("id", "key", "uttid"),
    "text": ("text", "txt"),
    "language": ("lang", "language"),
    "speaker": ("speaker", "spk"),
    "offset": ("offset",),
    "duration": ("duration",),
    "channel": ("channel",),
}
"""our fields and the keys that they go by in NeMo's and WeNet's manifests"""


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest: a recording, or a stretch of one."""

    id: str
    audio: str
    """path of the recording; a relative one was resolved against the manifest's folder. URLs stay as they are"""
    offset: float = 0.0
    """seconds into the recording"""
    duration: float | None = None
    """seconds; None = to the end"""
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """every other key of the line"""
    channel: int | None = None
    """the channel that is meant, from 0; None = the mix of all"""

    def load(self, *, max_seconds: float | None = None) -> NDArray[np.float32]:
        """Read the samples.

        Returns:
            (n,) float32 mono at 16 kHz.

        Raises:
            AudioError: the recording cannot be read, or ends before the stretch begins.
        """
        from vermilion.audio import SAMPLE_RATE

        samples = self._samples(max_seconds)
        first = round(self.offset * SAMPLE_RATE)
        last = len(samples) if self.duration is None else first + round(self.duration * SAMPLE_RATE)
        if first and first >= len(samples):
            raise AudioError(f"{self.audio} ends at {len(samples) / SAMPLE_RATE:.2f} s, before {self.offset:.2f} s")
        return samples[first:last]

    def _samples(self, max_seconds: float | None) -> NDArray[np.float32]:
        from vermilion.audio import load_audio, load_channels

        if self.channel is None:
            return load_audio(self.source(), max_seconds=max_seconds)
        channels = load_channels(self.source(), max_seconds=max_seconds)
        if self.channel >= len(channels):
            raise AudioError(f"{self.audio} has {len(channels)} channels; its line asks for {self.channel + 1}")
        chosen: NDArray[np.float32] = channels[self.channel]
        return chosen

    def source(self) -> str | bytes:
        """The whole recording, as `load_audio` takes it: its path, or its bytes where it is a part of a file.

        Raises:
            AudioError: that part cannot be read.
            ManifestError: the line does not say where it is.
        """
        return _part(self.audio, self.extra[BYTES]) if BYTES in self.extra else self.audio

    def to_dict(self) -> dict[str, Any]:
        """The line of a native manifest (NeMo-shaped)."""
        known = {
            "id": self.id,
            "audio_filepath": self.audio,
            "offset": self.offset or None,
            "duration": self.duration,
            "text": self.text,
            "lang": self.language,
            "speaker": self.speaker,
            "channel": self.channel,
        }
        return {key: value for key, value in known.items() if value is not None} | self.extra


def _part(audio: str, place: Any) -> bytes:
    """Some bytes of a file."""
    if not (isinstance(place, list) and len(place) == 2 and all(type(n) is int and n >= 0 for n in place)):
        raise ManifestError(f"{BYTES} of {audio} is {place!r} where [first byte, how many] is expected")
    first, count = place
    if count > _LARGEST_PART:
        raise AudioError(f"{BYTES} of {audio} asks for {count} bytes, more than any utterance has")
    try:
        with Path(audio).open("rb") as file:
            file.seek(first)
            data = file.read(count)
    except OSError as error:
        raise AudioError(f"cannot read {audio}: {error.strerror or error}") from error
    if len(data) != count:
        raise AudioError(f"{audio} ends before byte {first + count}: it is not the file that the manifest was made for")
    return data


def read_manifest(path: str | Path) -> list[Utterance]:
    """Read a whole manifest; see `iterate_manifest`.

    Raises:
        ManifestError: as there, or it is empty.
    """
    found = list(iterate_manifest(path))
    if not found:
        raise ManifestError(f"{path} lists no recording")
    return found


def iterate_manifest(
    path: str | Path, on_fault: Callable[[int, ManifestError], None] | None = None
) -> Iterator[Utterance]:
    """Read a manifest line by line.

    Args:
        path: JSON lines (`.gz` too) of `{audio_filepath, offset?, duration?, text?, lang?, id?, speaker?}` or WeNet's
            `{key, wav, txt, start?, end?}`; an array of such objects; a Kaldi folder, or its `wav.scp`.
        on_fault: is given the number of each line that is no entry, and what is wrong; reading goes on.

    Yields:
        Utterances; where a line names no id, the stem of its path and, for a stretch, its times in ms.

    Raises:
        ManifestError: the file cannot be read, or a line (its number is named) is no entry.
    """
    file = Path(path)
    if file.is_dir():
        file = file / KALDI_WAVES
    if file.name == KALDI_WAVES or file.suffix == ".scp":
        entries = _kaldi(file)
    else:
        entries = (partial(_entry, file, *line) for line in _numbered(file))
    for number, entry in enumerate(entries, 1):
        try:
            utterance = entry()
        except ManifestError as error:
            if on_fault is None:
                raise
            on_fault(number, error)
        else:
            if utterance is not None:
                yield utterance


def _numbered(file: Path) -> Iterator[tuple[int, Any]]:
    """Lines, or the entries of a JSON array, with their numbers."""
    lines = _lines(file, "surrogateescape")
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        found = _array(file)
        if found is not None:
            yield from enumerate(found, 1)
            return
    yield from enumerate(_lines(file, "surrogateescape"), 1)


def _array(file: Path) -> list[Any] | None:
    """The entries of a manifest that is one JSON array; None where it is none."""
    try:
        found = json.loads("".join(_lines(file, "surrogateescape")))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> int:
    """Write a native manifest (`.gz` too); paths below its folder become relative, others absolute.

    Returns:
        How many lines were written.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".part")  # the utterances may come from the very file that is replaced
    count = 0
    try:
        with _opened_for(temporary, file.suffix) as out:
            for utterance in utterances:
                row = utterance.to_dict()
                row["audio_filepath"] = _relative(row["audio_filepath"], file.parent)
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(file)
    return count


def _opened_for(temporary: Path, suffix: str) -> IO[str]:
    if suffix == ".gz":
        return gzip.open(temporary, "wt", encoding="utf-8")
    return temporary.open("w", encoding="utf-8")


def _relative(audio: str, folder: Path) -> str:
    if "://" in audio:
        return audio
    whole, root = Path(audio).absolute(), folder.absolute()
    return str(whole.relative_to(root) if whole.is_relative_to(root) else whole)


def _lines(file: Path, errors: str = "strict") -> Iterator[str]:
    try:
        with _open(file, errors) as lines:
            yield from lines
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise ManifestError(f"cannot read the manifest {file}: {error}") from error


def _open(file: Path, errors: str) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors=errors)
    return file.open(encoding="utf-8-sig", errors=errors)


def _entry(file: Path, number: int, line: Any) -> Utterance | None:
    """An utterance of a line, or of an entry of an array; None where the line is empty."""
    where = f"{file}, line {number}"
    row = line
    if isinstance(line, str):
        if not line.strip():
            return None
        try:
            line.encode()
            row = json.loads(line)
        except UnicodeEncodeError as error:
            raise ManifestError(f"{where} is no UTF-8 text") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits is no JSONDecodeError
            raise ManifestError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{where} is no JSON object")
    return from_row(row, file.parent, where)


def from_row(row: dict[str, Any], folder: Path, where: str) -> Utterance:
    """Make an utterance of a line's object.

    Args:
        row: see `iterate_manifest`.
        folder: relative paths begin there.
        where: for messages.

    Raises:
        ManifestError: it is no entry.
    """
    found: dict[str, Any] = {}
    row = _with_offset(row, where)
    for name, keys in _NAMES.items():
        key = next((k for k in keys if row.get(k) is not None), None)
        if key is not None:
            found[name] = row[key]
    for name, value in found.items():
        found[name] = _checked(name, value, where)
    if "audio" not in found:
        hint = "; it is a lhotse cut: vermilion data convert reads those" if "supervisions" in row else ""
        raise ManifestError(f"{where} names no recording (audio_filepath){hint}")
    named = found.pop("audio")
    audio = named if "://" in named else str(folder / named)
    extra = {k: v for k, v in row.items() if not any(k in keys for keys in _NAMES.values())}
    utterance = Utterance(**({"id": ""} | found), audio=audio, extra=extra)
    return utterance if utterance.id else Utterance(**{**vars(utterance), "id": _own_id(utterance)})


def _with_offset(row: dict[str, Any], where: str) -> dict[str, Any]:
    """WeNet's `start` and `end` (-1 = to the end) → `offset` and `duration`, where a line has both."""
    if not {"start", "end"} <= row.keys() or not row.keys().isdisjoint(("offset", "duration")):
        return row
    start, end = (_checked("offset", row["start"], where), row["end"])
    rest = {k: v for k, v in row.items() if k not in ("start", "end")}
    if end is None or end == -1:
        return {**rest, "offset": start}
    last = _checked("duration", end, where)
    if last < start:
        raise ManifestError(f"{where}: it ends at {last:g} s, before it begins at {start:g} s")
    return {**rest, "offset": start, "duration": last - start}


def _checked(name: str, value: Any, where: str) -> Any:
    if name == "channel":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ManifestError(f"{where}: channel is {value!r} where a number from 0 is expected")
        return value
    if name in ("offset", "duration"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LONGEST:
            raise ManifestError(f"{where}: {name} is {value!r} where seconds are expected")
        return float(value)
    if not isinstance(value, str) and not (name in ("id", "speaker") and isinstance(value, int)):
        raise ManifestError(f"{where}: {name} is {value!r} where a text is expected")
    if name == "audio" and "\0" in str(value):
        raise ManifestError(f"{where}: {value!r} is no path")
    return str(value)


def _own_id(utterance: Utterance) -> str:
    stem = Path(utterance.audio).stem
    if not utterance.offset and utterance.duration is None:
        return stem
    length = "" if utterance.duration is None else f"_{round(1000 * utterance.duration)}"
    return f"{stem}_{round(1000 * utterance.offset)}{length}"


Entry = Callable[[], Utterance | None]
"""an entry that is made when it is called, or raises what is wrong with it"""


def _kaldi(waves: Path) -> Iterator[Entry]:
    """`wav.scp` with what lies beside it: `segments`, `reco2file_and_channel`, `text`, `utt2lang`, `utt2spk`."""
    folder = waves.parent
    paths = dict(_pairs(waves))
    labels = [dict(_pairs(folder / n)) if (folder / n).exists() else {} for n in ("text", "utt2lang", "utt2spk")]
    sides = dict(_pairs(folder / RECORDING_SIDES)) if (folder / RECORDING_SIDES).exists() else {}
    scheme = _Kaldi(waves, paths, sides, *labels)
    segments = folder / "segments"
    if segments.exists():
        for number, line in enumerate(_lines(segments, "surrogateescape"), 1):
            yield partial(scheme.segment, f"{segments}, line {number}", line)
    else:
        for number, line in enumerate(_lines(waves, "surrogateescape"), 1):
            yield partial(scheme.recording, f"{waves}, line {number}", line)
        named = {_pair(line)[0] for line in _lines(waves, "surrogateescape")}
        for name in (n for n in sides if n not in named):  # recordings that are sides of a file
            yield partial(scheme.utterance, str(folder / RECORDING_SIDES), name, name)


@dataclass(frozen=True)
class _Kaldi:
    """A Kaldi folder."""

    waves: Path
    paths: dict[str, str]
    sides: dict[str, str]
    """recording → "file channel" """
    texts: dict[str, str]
    languages: dict[str, str]
    speakers: dict[str, str]

    def recording(self, where: str, line: str) -> Utterance | None:
        """A line of `wav.scp`."""
        name, path = _pair(line)
        if not name:
            return None
        if not path:
            raise ManifestError(f"{where}: {name!r} has no path")
        if name not in self.sides and self._is_split(name):
            return None  # its sides are the recordings
        return self.utterance(where, name, name)

    def _is_split(self, file: str) -> bool:
        return file in self.split_files

    @cached_property
    def split_files(self) -> frozenset[str]:
        """Files whose channels are recordings of their own."""
        return frozenset(side.split()[0] for name, side in self.sides.items() if side and side.split()[0] != name)

    def segment(self, where: str, line: str) -> Utterance | None:
        """A line of `segments`: utterance, recording, start, end, and a channel where recordings have several."""
        columns = line.split()
        if not columns:
            return None
        try:
            name, recording, start, end, *side = columns
            first, last = float(start), float(end)
        except ValueError as error:
            raise ManifestError(f"{where}: expected 'utterance recording start end'") from error
        if len(side) > 1 or not (math.isfinite(first) and math.isfinite(last) and 0 <= first < _LONGEST):
            raise ManifestError(f"{where}: expected 'utterance recording start end'")
        if last != -1 and last < first:
            raise ManifestError(f"{where}: {name} ends before it begins")
        channel = _side(side[0], where) if side else None
        return self.utterance(where, name, recording, first, None if last == -1 else last - first, channel)

    def utterance(
        self,
        where: str,
        name: str,
        recording: str,
        offset: float = 0.0,
        duration: float | None = None,
        channel: int | None = None,
    ) -> Utterance:
        """An utterance of a recording, with what the other files say of it."""
        file = recording
        if recording in self.sides:
            columns = self.sides[recording].split()
            if len(columns) != 2:
                raise ManifestError(f"{where}: {RECORDING_SIDES} says {columns} of {recording}, not 'file channel'")
            file = recording if recording in self.paths else columns[0]
            channel = _side(columns[1], where) if channel is None else channel
        path = self.paths.get(file)
        if path is None:
            raise ManifestError(f"{where}: {recording} is not in {KALDI_WAVES}")
        if path.endswith("|"):
            raise ManifestError(f"{where}: {file} is a command, which is not run; write its output to a file")
        audio = path if "://" in path else str(self.waves.parent / path)
        said = (self.texts.get(name), self.languages.get(name), self.speakers.get(name))
        if any(_is_torn(value) for value in (name, *said)):
            raise ManifestError(f"{where}: {name!r} or what is said of it is no UTF-8 text")
        return Utterance(name, audio, offset, duration, *said, channel=channel)


def _is_torn(value: str | None) -> bool:
    return value is not None and any("\ud800" <= c <= "\udfff" for c in value)


def _side(text: str, where: str) -> int:
    """`A` or `0` → 0, `B` or `1` → 1, and so on."""
    if text.isascii() and text.isdigit() and int(text) < _MOST_CHANNELS:
        return int(text)
    if len(text) == 1 and text.isascii() and text.isalpha():
        return ord(text.upper()) - ord("A")
    raise ManifestError(f"{where}: {text!r} is no channel (A, B or 0, 1)")


def _pairs(file: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(file, "surrogateescape"):
        if line.strip():
            yield _pair(line)


def _pair(line: str) -> tuple[str, str]:
    """`name rest`, separated by blanks."""
    name, *rest = line.strip().split(None, 1) or [""]
    return name, rest[0] if rest else ""
