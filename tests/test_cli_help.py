"""The command line as a whole: help that teaches, a fast start, exit codes."""

import importlib
import subprocess
import sys

import pytest
from cyclopts import App

from vermilion import __version__
from vermilion.cli import main
from vermilion.cli.app import COMMANDS


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert "Examples:" in out
    assert "Exit codes:" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_a_description_examples_and_exit_codes(command, capsys):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert COMMANDS[command] in out
    assert f"  vermilion {command}" in out
    assert "Exit codes:" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_says_what_the_command_says(command):
    module = importlib.import_module(f"vermilion.cli.{command}")
    found = getattr(module, command)
    said = found.help if isinstance(found, App) else found.__doc__.splitlines()[0]
    assert said == COMMANDS[command]
    assert max(len(line) for line in module.EXAMPLES.splitlines()) <= 79


GROUPS = [name for name in COMMANDS if isinstance(getattr(importlib.import_module(f"vermilion.cli.{name}"), name), App)]
SUBCOMMANDS = [(g, s) for g in GROUPS for s in importlib.import_module(f"vermilion.cli.{g}").SUBCOMMANDS]


@pytest.mark.parametrize(("group", "name"), SUBCOMMANDS)
def test_every_subcommand_has_help_too(group, name, capsys):
    summary = importlib.import_module(f"vermilion.cli.{group}").SUBCOMMANDS[name]
    assert main([group, name, "--help"]) == 0
    out = capsys.readouterr().out
    assert summary in " ".join(out.split())
    assert f"  vermilion {group} {name}" in out
    assert "Exit codes:" in out
    assert max(len(x) for x in importlib.import_module(f"vermilion.cli.{group}_{name}").EXAMPLES.splitlines()) <= 79


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_an_unknown_command_is_wrong_usage(capsys):
    assert main(["transcibe", "a.wav"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "vermilion --help" in err


def test_no_arguments_explain_themselves(capsys):
    assert main([]) == 0
    assert "Usage: vermilion" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    code = (
        "import sys, vermilion.cli as c; c.main(['transcribe', '--help']);"
        "heavy = {'torch', 'scipy', 'av', 'matplotlib', 'huggingface_hub', 'faster_whisper', 'sentencepiece'};"
        "bad = heavy & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_stops_early_is_no_error():
    code = "import sys, vermilion.cli as c; sys.exit(c.main(['--help']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert err == b""
