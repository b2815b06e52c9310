"""One module over several recordings: every failure in its place, one exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vermilion.assembly import as_error
from vermilion.cli.console import FAILED, OK, Terminal
from vermilion.cli.inputs import Item, expand
from vermilion.cli.streams import check_input
from vermilion.errors import OptionsError, VermilionError
from vermilion.transcript import Failure

R = TypeVar("R")


def recordings(arguments: Sequence[str], terminal: Terminal) -> tuple[list[Item], int]:
    """Find the recordings; an argument that names none is reported.

    Returns:
        The recordings, and the exit code so far.

    Raises:
        OptionsError: there is none of them, or standard input is one and closed.
    """
    notes: list[str] = []
    items, problems = expand(arguments, notes)
    absent = [item.name for item in items if item.path is not None and not item.path.exists()]
    if len(absent) == len(items):
        raise OptionsError("; ".join([*problems, *(f"there is no file {name}" for name in absent)]))
    if any(item.path is None for item in items):
        check_input()  # closed: say so before models are loaded
    for note in notes:
        terminal.say(note)
    for problem in problems:
        terminal.fail(problem)
    return items, FAILED if problems else OK


def for_each(
    items: Sequence[Item], work: Callable[[Item], R], report: Callable[[Item, R], None], terminal: Terminal, json: bool
) -> int:
    """Run `work` on every recording and `report` its result at once.

    Returns:
        The exit code.
    """
    code = OK
    for item in items:
        try:
            result = work(item)
        except (OSError, RuntimeError, ValueError, VermilionError) as error:
            failed(item, as_error(error), terminal, json)
            code = FAILED
        else:
            report(item, result)
    return code


def failed(item: Item, error: VermilionError, terminal: Terminal, json: bool) -> None:
    """Report a recording that failed."""
    if json:
        terminal.json({"wav_path": item.name, "error": type(error).__name__, "message": str(error)})
    message = str(error)
    terminal.fail(message if item.name in message else f"{item.name}: {message}")


def only(results: Sequence[R | Failure]) -> R:
    """The single entry of a list; a failure is raised."""
    result = results[0]
    if isinstance(result, Failure):
        raise result.error
    return result


def named(module: object) -> str:
    """The name that a module goes by."""
    return str(getattr(module, "name", None) or type(module).__name__)


def identity(item: Item) -> dict[str, Any]:
    """The published keys that say which recording a result belongs to."""
    return {"uttid": Path(item.inner).name, "wav_path": item.name}
