"""Standard streams that are closed, full, or whose reader has gone: daemons, windowed programs, `2>&-`, `| head`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from vermilion.errors import OptionsError, VermilionError


class _ClosedOutput(io.TextIOBase):
    """In the place of a closed standard output: writing a result there says so."""

    def write(self, text: str, /) -> int:
        """Refuse.

        Raises:
            OptionsError: always.
        """
        raise OptionsError("standard output is closed: there is nowhere to write the result; open it, or write files")


class _ClosedInput(io.TextIOBase):
    """In the place of a closed standard input."""

    def _refuse(self, *_: Any) -> Any:
        raise OptionsError("standard input is closed; name a file instead of -")

    read = readline = __next__ = _refuse
    buffer = property(_refuse)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Give what is closed (None, as Python says it) a stand-in: nothing is said, results and input are refused."""
    before = sys.stdin, sys.stdout, sys.stderr
    _occupy()
    with open(os.devnull, "w", encoding="utf8") as nowhere:  # noqa: PTH123 - no path
        sys.stdin = before[0] if before[0] is not None else _ClosedInput()
        sys.stdout = before[1] if before[1] is not None else _ClosedOutput()
        sys.stderr = before[2] if before[2] is not None else nowhere
        try:
            yield
        finally:
            _settle(sys.stdout)
            _settle(sys.stderr)
            sys.stdin, sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Let no file that is opened later get the number of a closed stream: what libraries print would land in it."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)  # children as well
        os.close(number)


def input_bytes() -> BinaryIO:
    """Standard input as bytes.

    Raises:
        OptionsError: it is closed.
    """
    return sys.stdin.buffer


def check_input() -> None:
    """Refuse a closed standard input before anything is loaded.

    Raises:
        OptionsError: it is closed.
    """
    if isinstance(sys.stdin, _ClosedInput):
        sys.stdin.read()


def has_output() -> bool:
    """Whether standard output takes results."""
    return not isinstance(sys.stdout, _ClosedOutput)


@contextmanager
def written(what: str = "standard output") -> Iterator[None]:
    """Turn what the system says about a stream into a sentence; a reader that has gone stays a `BrokenPipeError`.

    Raises:
        VermilionError: the stream takes no more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VermilionError(f"cannot write to {what}: {error.strerror or error}") from error


def _settle(stream: Any) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        silence(stream)


def silence(stream: Any) -> None:
    """Send the rest to nowhere: the interpreter flushes once more at its end, and would complain."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def plain(error: OSError) -> str:
    """What the system refused, without Python's words."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason
