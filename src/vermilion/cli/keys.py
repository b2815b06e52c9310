"""`vermilion keys`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vermilion.cli.console import OK, Terminal
from vermilion.cli.options import Json
from vermilion.cli.reading import rows_table
from vermilion.errors import OptionsError
from vermilion.server.keys import KeyFile
from vermilion.server.options import state_folder

EXAMPLES = """Examples:
  vermilion keys add laptop                        prints the key, this once
  vermilion keys list
  vermilion keys remove laptop                     at once, also while serving

Clients send it as `Authorization: Bearer KEY` (OPENAI_API_KEY=KEY)."""


def keys(
    action: Annotated[Literal["add", "list", "remove"], Parameter(help="What to do.")],
    name: Annotated[str | None, Parameter(help="Who the key is for.")] = None,
    /,
    *,
    file: Annotated[Path | None, Parameter(help="File of keys; give the same to `vermilion serve --keys`.")] = None,
    json: Json = False,
) -> int:
    """Make, list and remove the API keys of the server."""
    store = KeyFile(file or state_folder() / "keys.json")
    terminal = Terminal()
    if action == "list":
        return _list(terminal, store, json)
    if name is None:
        raise OptionsError(f"say whose key: vermilion keys {action} NAME")
    if action == "remove":
        store.remove(name)
        terminal.say(f"the key of {name} is worth nothing any more")
        return OK
    key = store.add(name)
    if json:
        terminal.json({"name": name, "key": key})
    else:
        terminal.write(key + "\n")
    terminal.say(f"kept as a hash in {store.path}; nobody can read the key there, so note it now")
    return OK


def _list(terminal: Terminal, store: KeyFile, json: bool) -> int:
    found = store.keys()
    if json:
        for key in found:
            terminal.json({"name": key.name, "created": key.created, "ends_with": key.hint})
        return OK
    rows = [[key.name, f"…{key.hint}", _day(key.created)] for key in found]
    terminal.show(rows_table(("name", "key", "made"), rows))
    return OK


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
