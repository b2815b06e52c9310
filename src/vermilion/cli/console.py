"""What commands write to: results on stdout, everything else on stderr; and the exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vermilion.cli.streams import silence, written

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from vermilion.errors import VermilionError

OK, FAILED, USAGE, MISSING, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141

EXIT_CODES = """Exit codes:
  0    all fine
  1    a recording or a part of one failed (the others are complete)
  2    wrong usage: an unknown option or format, no input
  3    models or packages are missing
  130  interrupted (finished outputs stay; run the same command again to go on)

--debug shows the traceback of an error."""


def exit_code(error: VermilionError) -> int:
    """The exit code for an error that ended the command."""
    from vermilion import errors

    if isinstance(error, errors.CheckpointError | errors.MissingDependencyError | errors.HubError):
        return MISSING
    if isinstance(error, errors.OptionsError | errors.FormatError | errors.UnsupportedLanguageError):
        return USAGE
    return USAGE if isinstance(error.__cause__, FileNotFoundError) else FAILED


def use_utf8() -> None:
    """Transcripts hold any script; a terminal with another encoding must not end the run."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


class Terminal:
    """The two outputs of a command."""

    def __init__(self, quiet: bool = False) -> None:
        """Take whether only results and errors are wanted."""
        self.quiet = quiet

    @cached_property
    def err(self) -> Console:
        """Console for everything that is not a result."""
        return _console(sys.stderr)

    @cached_property
    def out(self) -> Console:
        """Console for results that people read."""
        return _console(sys.stdout)

    def say(self, text: str) -> None:
        """Remark on the course of things."""
        if not self.quiet:
            self._line(text, "dim")

    def warn(self, text: str) -> None:
        """Remark that a user should know about the result."""
        if not self.quiet:
            self._line(f"warning: {text}", "yellow")

    def fail(self, text: str) -> None:
        """Say what went wrong; never silenced."""
        self._line(f"error: {text}", "bold red")

    def _line(self, text: str, style: str) -> None:
        try:
            self.err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
        except OSError:  # nobody hears it (a full disk, a reader that has gone): the work goes on
            silence(sys.stderr)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show that something takes its time."""
        if self.quiet or not self.err.is_terminal:
            yield
            return
        with self.err.status(text, spinner="dots"):
            yield

    def answered(self, models: Mapping[str, str], how: str = "") -> None:
        """Say which models answer."""
        names = " · ".join(f"{stage} {name}" for stage, name in models.items())
        self.say(f"models: {names or 'none'}" + (f" ({how})" if how else ""))

    def write(self, text: str) -> None:
        """Write a result as it is."""
        with written():
            sys.stdout.write(text if text.endswith("\n") else text + "\n")
            sys.stdout.flush()

    def json(self, value: Any) -> None:
        """Write one JSON object on one line."""
        self.write(json.dumps(value, ensure_ascii=False))

    def show(self, thing: RenderableType) -> None:
        """Write a table or styled text."""
        self.print(thing, soft_wrap=isinstance(thing, str))

    def print(self, thing: RenderableType, **how: Any) -> None:
        """Write what rich can show, as `rich.console.Console.print` does."""
        with written():
            self.out.print(thing, **how)


def _console(stream: Any) -> Console:
    from rich.console import Console

    class Plain(Console):
        """Leaves a reader that has gone to `main`; rich would end the process."""

        def on_broken_pipe(self) -> None:
            raise

    # a pipe has no width: wide enough that tables are not cut
    width = None if stream.isatty() or "COLUMNS" in os.environ else 200
    return Plain(file=stream, width=width, highlight=False, markup=False, emoji=False)
