"""Commands that are a group of sub-commands, each in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cyclopts import App, Parameter

from vermilion.cli.console import EXIT_CODES


def group(name: str, summary: str, examples: str, subcommands: Mapping[str, str]) -> App:
    """Build a group; a sub-command is imported when it runs.

    Args:
        name: of the group; the sub-command `x` is `x_app` of `vermilion.cli.NAME_x`.
        summary: what the group's help says.
        examples: the end of it.
        subcommands: name → first line of its docstring.
    """
    app = _app(name, examples, summary)
    for each, line in subcommands.items():
        app.command(f"vermilion.cli.{name}_{each}:{each}_app", name=each, help=line)
    return app


def subcommand(command: Callable[..., int], examples: str) -> App:
    """Wrap the function `NAME_command` so that its help ends with examples and exit codes."""
    app = _app(command.__name__.removesuffix("_command"), examples)
    app.default(command)
    return app


def _app(name: str, examples: str, summary: str | None = None) -> App:
    return App(
        name=name,
        help=summary,
        help_epilogue=f"{examples}\n\n{EXIT_CODES}",
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
    )
