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
    function = getattr(module, command)
    summary = function.help if isinstance(function, App) else function.__doc__.splitlines()[0]
    assert summary == COMMANDS[command]
    assert max(len(line) for line in module.EXAMPLES.splitlines()) <= 79


GROUPS = [
    (name, sub)
    for name in COMMANDS
    for sub in getattr(importlib.import_module(f"vermilion.cli.{name}"), "SUBCOMMANDS", ())
]


@pytest.mark.parametrize(("command", "sub"), GROUPS)
def test_every_sub_command_teaches_too(command, sub, capsys):
    assert main([command, sub, "--help"]) == 0
    out = capsys.readouterr().out
    summary = importlib.import_module(f"vermilion.cli.{command}").SUBCOMMANDS[sub]
    assert summary in " ".join(out.split())
    assert f"  vermilion {command} {sub}" in out
    assert "Exit codes:" in out
    examples = importlib.import_module(f"vermilion.cli.{command}_{sub}").EXAMPLES
    assert max(len(line) for line in examples.splitlines()) <= 79


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
