"""The command line: one command per file, no logic of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from vermilion.cli.console import FAILED, INTERRUPTED, PIPE_CLOSED, USAGE, Terminal, exit_code, use_utf8
from vermilion.cli.streams import plain, standard_streams, written
from vermilion.runtime import wait_passively

STDIN = "<stdin>"
"""how a bare `-` travels through the option parser, which would take it for an option"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: arguments without the program's name; those of the process if None.

    Returns:
        The exit code: 0 fine, 1 something failed, 2 wrong usage, 3 models or packages missing, 130 interrupted.
    """
    wait_passively()
    tokens, debug = normalised(list(sys.argv[1:] if argv is None else argv))
    with standard_streams():
        use_utf8()
        try:
            return _run(tokens, debug)
        except KeyboardInterrupt:
            Terminal().say("interrupted")
            return INTERRUPTED
        except BrokenPipeError:  # the reader (head, less) has had enough
            return PIPE_CLOSED


def _run(tokens: list[str], debug: bool) -> int:
    from cyclopts import CycloptsError

    from vermilion.cli.app import build
    from vermilion.errors import VermilionError

    terminal = Terminal()
    app = build(tokens[0] if tokens else "")
    try:
        code: Any = app(tokens, exit_on_error=False, print_error=False)
        with written():
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        terminal.fail(_usage(error))
        terminal.say(f"try: {' '.join(['vermilion', *(error.command_chain or [])])} --help")
        return USAGE
    except VermilionError as error:
        if debug:
            raise
        terminal.fail(str(error))
        return exit_code(error)
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except OSError as error:  # files, folders, ports, disks: the system's own words say it
        if debug:
            raise
        terminal.fail(plain(error))
        return USAGE if isinstance(error, FileNotFoundError) else FAILED
    except MemoryError:
        if debug:
            raise
        terminal.fail("there is not enough memory for this")
        return FAILED
    except Exception as error:  # the outermost seam: a user gets a sentence, --debug gets the traceback
        if debug:
            raise
        terminal.fail(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)")
        return FAILED


def _usage(error: Any) -> str:
    """What the parser says; of an unknown option the nearest by its initials too (--lr: --learning-rate)."""
    text, collection = " ".join(str(error).split()), getattr(error, "argument_collection", None)
    token = getattr(error, "token", None)
    wanted = (getattr(token, "keyword", None) or getattr(token, "value", None) or "").partition("=")[0].lstrip("-")
    if collection is None or len(wanted) < 2:
        return text
    names = [n for argument in collection if argument.parse for n in argument.names if n.startswith("--")]
    found = [n for n in names if "".join(p[:1] for p in n.rpartition(".")[2].strip("-").split("-")) == wanted]
    return f"{text.partition(' Did you mean')[0]} Did you mean {' or '.join(found[:3])}?" if found else text


def normalised(tokens: list[str]) -> tuple[list[str], bool]:
    """Give the parser what it can read: `-` as a name, a bare `--visualize` its default; take `--debug` out.

    Returns:
        The tokens, and whether `--debug` was among them.
    """
    out: list[str] = []
    debug = False
    for i, token in enumerate(tokens):
        if token == "--":
            return [*out, *tokens[i:]], debug
        if token == "--debug":
            debug = True
        elif token == "-":
            out.append(STDIN)
        elif token == "--visualize" and tokens[i + 1 : i + 2] not in (["png"], ["html"]):
            out.append("--visualize=png")
        else:
            out.append(token)
    return out, debug
