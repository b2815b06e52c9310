"""`vermilion punctuate`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vermilion import loading
from vermilion.cli import STDIN
from vermilion.cli.console import FAILED, OK, Terminal
from vermilion.cli.each import named
from vermilion.cli.options import Hardware, Json, ModelsOption, Quiet
from vermilion.cli.streams import check_input
from vermilion.errors import OptionsError

EXAMPLES = """Examples:
  vermilion punctuate "今天天气怎么样我们出去走走吧"
  vermilion punctuate --file plain.txt > marked.txt     one text per line
  cat plain.txt | vermilion punctuate - --json"""

BATCH = 64


def punctuate(
    texts: Annotated[list[str] | None, Parameter(help="Texts; - reads one per line from standard input.")] = None,
    /,
    *,
    file: Annotated[list[Path] | None, Parameter(name=["--file"], help="Read one text per line; repeatable.")] = None,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Put punctuation and casing into plain text."""
    if not texts and not file:
        raise OptionsError("give texts, --file, or - for standard input")
    if STDIN in (texts or []):
        check_input()
    terminal = Terminal(quiet)
    with terminal.working("loading models"):
        restorer = loading.load_restorer(models, options=hardware.apply())
    terminal.answered({"punc": named(restorer)}, str(hardware))
    lines = _lines(texts or [], file or [])
    while True:
        try:
            batch = list(islice(lines, BATCH))
        except (OSError, UnicodeDecodeError) as error:
            terminal.fail(str(error))
            return FAILED
        if not batch:
            return OK
        for text, marked in zip(batch, restorer.restore(batch), strict=True):
            terminal.json({"punc_text": marked, "origin_text": text}) if json else terminal.write(marked)


def _lines(texts: Sequence[str], files: Sequence[Path]) -> Iterator[str]:
    """Every text, one per line of files and standard input; empty lines stay empty lines."""
    for text in texts:
        if text == STDIN:
            yield from (line.rstrip("\r\n") for line in sys.stdin)
        else:
            yield text
    for path in files:
        with path.open(encoding="utf-8") as stream:
            yield from (line.rstrip("\r\n") for line in stream)
