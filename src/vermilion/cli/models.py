"""`vermilion models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vermilion.checkpoints import catalogue
from vermilion.checkpoints.catalogue import ModelStatus
from vermilion.cli.console import OK, Terminal
from vermilion.cli.groups import group
from vermilion.cli.options import MODELS, Json
from vermilion.cli.reading import rows_table, size
from vermilion.errors import install

EXAMPLES = """Examples:
  vermilion models
  vermilion models --models path/to/pretrained_models     what of them is there
  vermilion models --json | jq -r 'select(.complete) | .name'
  vermilion models check path/to/pretrained_models        will they run?"""

SUBCOMMANDS = {"check": "Say what model folders hold, what is wrong, and whether they run."}


def models_command(
    *,
    models: Annotated[
        Path | None, Parameter(name=["--models", "-m"], group=MODELS, help="Look into this folder first.")
    ] = None,
    json: Json = False,
) -> int:
    """List the known models: which are present, where, how large."""
    terminal = Terminal()
    found = catalogue.status(models)
    if json:
        for status in found:
            terminal.json(_as_dict(status))
        return OK
    columns = ("model", "state", "size", "what for", "where")
    terminal.show(rows_table(columns, [_row(status) for status in found]))
    if not all(status.complete for status in found):
        terminal.say(f"vermilion pull NAME downloads a model; for the packages {install('starter')}")
    return OK


def _row(status: ModelStatus) -> list[str]:
    entry = status.entry
    on_disk = size(status.size) if status.size else f"({size(entry.megabytes * 10**6)})"
    return [entry.name, _state(status), on_disk, entry.description, _where(status)]


def _state(status: ModelStatus) -> str:
    if status.path is None:
        return "-"
    if not status.complete:
        return f"incomplete, without {', '.join(status.missing)}"
    return "ready, converted" if status.converted else "ready"


def _where(status: ModelStatus) -> str:
    """The package, or the path as short as it can be said."""
    if status.entry.packages:
        return f"package {status.entry.packages[0]}" if status.path else "pip install"
    if status.path is None:
        return "vermilion pull"
    for folder, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if status.path.is_absolute() and status.path.is_relative_to(folder):
            return f"{prefix}{status.path.relative_to(folder)}"
    return str(status.path)


def _as_dict(status: ModelStatus) -> dict[str, object]:
    entry = status.entry
    return {
        "name": entry.name,
        "kind": entry.kind,
        "description": entry.description,
        "path": str(status.path) if status.path else None,
        "bytes": status.size,
        "complete": status.complete,
        "missing": list(status.missing),
        "converted": status.converted,
        "download_megabytes": entry.megabytes,
        "hugging_face": entry.hugging_face or None,
        "modelscope": entry.modelscope or None,
        "packages": list(entry.packages),
        "licence": entry.licence,
    }


SUMMARY = "List the known models: which are present, where, how large."
models = group("models", SUMMARY, EXAMPLES, SUBCOMMANDS)
models.default(models_command)
