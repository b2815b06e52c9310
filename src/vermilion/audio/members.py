"""Files that hold several recordings one behind the other, or more sound than their header announces.

`cat a.wav b.wav`, a header in front of every streamed chunk, a recorder that died after its first flush, the links of a
chained Ogg: each member is decoded in turn. Only headers are read here; memory does not follow what they claim.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from vermilion.audio.decode import Warn

_MOST = 10_000
"""members; far above any dump of a radio station"""
_MOST_STEPS = 2_000_000
"""headers of chunks, boxes or pages that are passed over"""
_SMALL = 1024
"""bytes behind the end that are not worth a word: padding, tags"""
_BLOCK = 1 << 20
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_WAVES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_UNKNOWN = 0xFFFFFFFF
_KNOWN_CHUNKS = frozenset(
    b"LIST,bext,id3 ,ID3 ,cue ,smpl,inst,fact,PEAK,iXML,axml,data,JUNK,junk,PAD ,afsp,DISP,cart,_PMX,umid,chna,"
    b"link,mext,levl,regn,plst,acid,strc,minf,FLLR,fmt ".split(b",")
)
_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_WAVE = re.compile(rb"(?:RIFF|RIFX|RF64|BW64)....WAVE(?:fmt |JUNK|ds64|bext|LIST)", re.DOTALL)


class View:
    """A read-only file made of a head and stretches of another file, with a position of its own."""

    def __init__(self, handle: BinaryIO, stretches: list[tuple[int, int]], head: bytes = b"") -> None:
        """Take (first byte, byte behind the last) of every stretch."""
        self.handle, self.head, self.at = handle, head, 0
        self.stretches = [(a, b) for a, b in stretches if b > a]
        self.size = len(head) + sum(b - a for a, b in self.stretches)

    def seekable(self) -> bool:
        """Tell that it can."""
        return True

    def readable(self) -> bool:
        """Tell that it can."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        place = offset + (0, self.at, self.size)[whence]
        if place < 0:
            raise ValueError(f"there is nothing at byte {place}")
        self.at = place
        return place

    def tell(self) -> int:
        """Tell where it stands."""
        return self.at

    def read(self, size: int = -1) -> bytes:
        """Read across stretches."""
        left = max(0, self.size - self.at) if size is None or size < 0 else min(size, max(0, self.size - self.at))
        found = [self.head[self.at : self.at + left]]
        left -= len(found[0])
        place = max(0, self.at + len(found[0]) - len(self.head))
        for first, end in self.stretches:
            length = end - first
            if left > 0 and place < length:
                self.handle.seek(first + place)
                piece = self.handle.read(min(left, length - place))
                found.append(piece)
                left -= len(piece)
                if len(piece) < min(left + len(piece), length - place):
                    break  # the file is shorter than it was
                place = 0
            else:
                place = max(0, place - length)
        data = b"".join(found)
        self.at += len(data)
        return data


def members(handle: BinaryIO, warn: Warn) -> Iterator[BinaryIO]:
    """Yield what is to be decoded one after the other; mostly the file itself, and always at least that.

    Args:
        handle: seekable binary file.
        warn: called where the file goes on behind what its header announces.
    """
    end = handle.seek(0, os.SEEK_END)
    start, count = _after_tag(handle, 0, end), 0
    while start < end and count < _MOST:
        member, start = _member(handle, start, end, warn)
        yield member
        count += 1
    if start < end:
        warn(f"it holds more than {_MOST} recordings one behind the other; the later ones were left out")


def view(handle: BinaryIO) -> BinaryIO:
    """The same file with a position of its own."""
    return _view(handle, 0, handle.seek(0, os.SEEK_END))


def _view(handle: BinaryIO, start: int, end: int, head: bytes = b"") -> BinaryIO:
    return cast(BinaryIO, View(handle, [(start, end)], head))


def _member(handle: BinaryIO, start: int, end: int, warn: Warn) -> tuple[BinaryIO, int]:
    """The member that begins at `start`, and where the next one begins."""
    magic = _at(handle, start, 12)
    if magic[:4] in _WAVES and magic[8:12] == b"WAVE":
        return _wave(handle, start, end, warn)
    following = end
    if magic[:4] == b"fLaC":
        following = _next_mark(handle, start + 4, end, _FLAC)
    elif magic[:4] == b"OggS":
        following = _next_link(handle, start, end)
    elif magic[4:8] == b"ftyp":
        following = _next_movie(handle, start, end)
    elif magic[:4] in (b"FORM", b"RIFF", b".snd"):
        following = _next_form(handle, start, end, magic, warn)
    elif magic[:4] == b"\x1aE\xdf\xa3":
        following = _next_matroska(handle, start, end)
    return (handle if start == 0 and following == end else _view(handle, start, following)), following


def _at(handle: BinaryIO, place: int, size: int) -> bytes:
    try:
        handle.seek(place)
        return handle.read(size)
    except (OSError, ValueError, EOFError):
        return b""


def _after_tag(handle: BinaryIO, start: int, end: int) -> int:
    """Behind an ID3 tag, where it stands in front of something that does not expect one."""
    head = _at(handle, start, 10)
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
        return start
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    behind = start + 10 + size + (10 if head[5] & 0x10 else 0)
    for place in (behind, behind + 1):
        magic = _at(handle, place, 12) if place < end else b""
        if (magic[:4] in _WAVES and magic[8:12] == b"WAVE") or magic[:4] in (b"fLaC", b"FORM", b"OggS"):
            return place
    return start


def _next_mark(handle: BinaryIO, start: int, end: int, mark: re.Pattern[bytes]) -> int:
    """Where a header stands behind `start`."""
    kept, place = b"", start
    while place < end:
        block = _at(handle, place, min(_BLOCK, end - place))
        if not block:
            return end
        found = mark.search(kept + block)
        if found is not None:
            return place - len(kept) + found.start()
        kept, place = (kept + block)[-32:], place + len(block)
    return end


# ---- WAV


def _wave(handle: BinaryIO, start: int, end: int, warn: Warn) -> tuple[BinaryIO, int]:
    """A WAV with all its data chunks and what was written behind them."""
    order = ">" if _at(handle, start, 4) == b"RIFX" else "<"
    fixed, data, place = _chunks(handle, start, end, order)
    if (
        place is None or not data or b"fmt " not in fixed
    ):  # sizes that are not known: libsndfile and FFmpeg know what to do
        following = _next_mark(handle, start + 12, end, _WAVE)
        return (handle if start == 0 and following == end else _view(handle, start, following)), following
    following = _after_tag(handle, place, end)
    if not _WAVE.match(_at(handle, following, 16)):
        following = _next_mark(handle, place, end, _WAVE)
        if following - place > _SMALL and not _is_tag(handle, place) and not _is_padding(handle, place, following):
            count = following - place
            warn(f"it goes on for {count} bytes behind what its header announces; they were read as more of its sound")
            data[-1] = (data[-1][0], following)
    elif following > place:
        pass  # a tag between two files
    if len(data) == 1 and start == 0 and following == end and data[0][1] <= place:
        return handle, end
    if len(data) == 1 and data[0][1] <= place:
        return _view(handle, start, place), following
    size = min(sum(b - a for a, b in data), _UNKNOWN - 1024)
    body = b"WAVE" + b"fmt " + struct.pack(order + "I", len(fixed[b"fmt "])) + fixed[b"fmt "]
    body += b"data" + struct.pack(order + "I", size)
    head = (b"RIFX" if order == ">" else b"RIFF") + struct.pack(order + "I", len(body) + size) + body
    return cast(BinaryIO, View(handle, data, head)), following


def _chunks(
    handle: BinaryIO, start: int, end: int, order: str
) -> tuple[dict[bytes, bytes], list[tuple[int, int]], int | None]:
    """The small chunks, where the data chunks lie, and where the chunks end; None where a size is not to be trusted."""
    fixed: dict[bytes, bytes] = {}
    data: list[tuple[int, int]] = []
    (announced,) = struct.unpack(order + "I", _at(handle, start + 4, 4))
    inside = end if announced in (0, _UNKNOWN) else min(end, start + 8 + announced)
    place = start + 12
    for _ in range(_MOST_STEPS):
        head = _at(handle, place, 8) if place + 8 <= end else b""
        name = head[:4]
        if len(head) < 8 or not _is_chunk(name, place < inside):
            break
        (size,) = struct.unpack(order + "I", head[4:])
        if name == b"data" and size == _UNKNOWN and b"ds64" in fixed and len(fixed[b"ds64"]) >= 16:
            (size,) = struct.unpack("<Q", fixed[b"ds64"][8:16])
        if place + 8 + size > end or (name == b"data" and size == 0):
            return fixed, data, None if name == b"data" else place
        if name == b"data":
            data.append((place + 8, place + 8 + size))
        elif size <= 1 << 16:
            fixed.setdefault(name, _at(handle, place + 8, size))
        place += 8 + size
        if size % 2 and not _starts_chunk(_at(handle, place, 4)):  # a padding byte, which some writers forget
            place += 1
    return fixed, data, min(place, end)


def _is_chunk(name: bytes, inside: bool) -> bool:
    if name in _WAVES:
        return False
    return name in _KNOWN_CHUNKS or (inside and len(name) == 4 and all(32 <= c < 127 for c in name))


def _starts_chunk(name: bytes) -> bool:
    return name in _KNOWN_CHUNKS or name in _WAVES


def _is_tag(handle: BinaryIO, place: int) -> bool:
    head = _at(handle, place, 11)
    return head.startswith(_TAGS) or (head[:3] == b"ID3" and len(head) > 9 and max(head[6:10]) < 128)


def _is_padding(handle: BinaryIO, place: int, end: int) -> bool:
    """Nothing but zeros (looked at in pieces)."""
    while place < end:
        block = _at(handle, place, min(_BLOCK, end - place))
        if not block or block.strip(b"\0"):
            return False
        place += len(block)
    return True


# ---- others


def _next_form(handle: BinaryIO, start: int, end: int, magic: bytes, warn: Warn) -> int:
    """AIFF, AVI and AU: the size stands in the header."""
    if magic[:4] == b".snd":
        first, size = struct.unpack(">II", magic[4:12])
        behind = start + first + size if size not in (0, _UNKNOWN) else end
    else:
        (size,) = struct.unpack(">I" if magic[:4] == b"FORM" else "<I", magic[4:8])
        behind = start + 8 + size + size % 2 if size not in (0, _UNKNOWN) else end
    if not start < behind < end:
        return end
    head = _at(handle, behind, 12)
    if head[:4] == magic[:4] and (magic[:4] == b".snd" or head[8:12] == magic[8:12]):
        return behind
    left = end - behind
    sound = magic[:4] == b".snd" or magic[8:11] == b"AIF"
    if sound and left > _SMALL and not _is_tag(handle, behind) and not _is_padding(handle, behind, end):
        warn(f"it goes on for {left} bytes behind what its header announces; they were not read")
    return end


def _next_link(handle: BinaryIO, start: int, end: int) -> int:
    """The next link of a chained Ogg: a page that begins a stream behind pages that do not."""
    place, inside = start, False
    buffered = io.BufferedReader(_Raw(handle, start, end), 1 << 16)
    for _ in range(_MOST_STEPS):
        head = buffered.read(27)
        if len(head) < 27 or head[:4] != b"OggS":  # damage: FFmpeg finds its way
            return end
        begins = bool(head[5] & 2)
        if begins and inside:
            return place
        inside = inside or not begins
        table = buffered.read(head[26])
        buffered.seek(sum(table), os.SEEK_CUR)
        place += 27 + len(table) + sum(table)
        if place >= end:
            return end
    return end


class _Raw(io.RawIOBase):
    """A stretch of a file for `io.BufferedReader`."""

    def __init__(self, handle: BinaryIO, start: int, end: int) -> None:
        self.inner = View(handle, [(start, end)])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.inner.seek(offset, whence)

    def tell(self) -> int:
        return self.inner.tell()

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        data = self.inner.read(len(target))
        target[: len(data)] = data
        return len(data)


def _next_movie(handle: BinaryIO, start: int, end: int) -> int:
    """Where another MP4 begins behind one that is complete: an `ftyp` behind sound."""
    place, sound = start, False
    for _ in range(_MOST_STEPS):
        head = _at(handle, place, 16)
        if len(head) < 8:
            return end
        size, kind = struct.unpack(">I4s", head[:8])
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack(">Q", head[8:])
        if kind == b"ftyp" and sound:
            return place
        sound = sound or kind == b"mdat"
        if size < 8 or place + size >= end:
            return end
        place += size
    return end


def _next_matroska(handle: BinaryIO, start: int, end: int) -> int:
    """Where another Matroska file begins behind one whose size is known."""
    place = start
    for wanted in (b"\x1aE\xdf\xa3", b"\x18S\x80\x67"):
        head = _at(handle, place, 12)
        if head[:4] != wanted or len(head) < 12 or not head[4]:
            return end
        width = 9 - head[4].bit_length()
        value = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if value == (1 << 7 * width) - 1:  # not known
            return end
        place += 4 + width + value
    return place if start < place < end and _at(handle, place, 4) == b"\x1aE\xdf\xa3" else end
