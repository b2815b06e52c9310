"""`vermilion prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import OK, Terminal
from vermilion.cli.options import Json, Quiet

EXAMPLES = """Examples:
  vermilion prepare aishell1 corpora/data_aishell -o manifests
  vermilion prepare ws-net corpora/WenetSpeech -o manifests
  vermilion prepare md-yue-daily corpora/cantonese -o manifests
  vermilion prepare --list

The folder is the one that the set's owners distribute, archives unpacked.
Then: vermilion evaluate table 2 --data manifests"""


def prepare(
    name: Annotated[str | None, Parameter(help="Name of the test set; --list shows them.")] = None,
    folder: Annotated[Path | None, Parameter(help="Folder as its owners distribute it.")] = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder for NAME.jsonl, or a .jsonl file.")] = Path(
        "manifests"
    ),
    list_: Annotated[bool, Parameter(name="--list", negative="", show_default=False, help="List the sets.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make a manifest of a public test set out of its owners' folder."""
    from vermilion.errors import OptionsError
    from vermilion.evaluation import corpora

    terminal = Terminal(quiet)
    if list_:
        if json:
            terminal.json(list(corpora.PREPARERS))
        else:
            terminal.write("\n".join(corpora.PREPARERS))
        return OK
    if name is None or folder is None:
        raise OptionsError("give the name of a test set and its folder; --list shows the names")
    with terminal.working(f"reading {folder}"):
        count = corpora.prepare(name, folder, output)
    target = corpora.target_of(name, output)
    if json:
        terminal.json({"set": name, "manifest": str(target), "utterances": count})
    else:
        terminal.show(f"{target}: {count} utterances")
    return OK
