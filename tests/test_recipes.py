"""The scripts of recipes/, with programs that only write down how they were called."""

import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / "recipes" / "finetune" / "run.sh"
if not RUN.is_file():
    pytest.skip("recipes/ is not part of this copy", allow_module_level=True)


def calls(tmp_path: Path, *arguments: str) -> list[list[str]]:
    note = tmp_path / "calls"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nfor a in "$@"; do printf "%s\\037" "$a"; done >> "{note}"; echo >> "{note}"\n')
    program.chmod(0o755)
    environment = {"PYTHON": str(program), "TTS_PYTHON": str(program), "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", str(RUN), "the model", str(tmp_path / "out"), *arguments], env=environment, check=True)
    return [line.rstrip("\037").split("\037") for line in note.read_text().splitlines()]


def options(call: list[str]) -> dict[str, str]:
    found = [call[i] for i in range(len(call)) if call[i].startswith("--")]
    assert len(found) == len(set(found))  # the command line refuses repeats
    return {name: call[call.index(name) + 1] for name in found}


def test_the_recipe_s_options_are_defaults(tmp_path):
    made, trained, measured = calls(tmp_path)
    assert made[0].endswith("make_data.py")
    assert trained[:4] == ["-m", "vermilion", "train", "aed"]
    found = options(trained)
    assert (found["--steps"], found["--learning-rate"], found["--init"]) == ("150", "5e-4", "the model")
    assert measured[0].endswith("measure.py")


def test_options_replace_them_in_both_spellings(tmp_path):
    trained = calls(tmp_path, "--steps", "7", "--learning-rate=1e-5", "--lora-rank", "4")[1]
    assert trained.count("--steps") == 1
    assert trained[trained.index("--steps") + 1] == "7"
    assert "--learning-rate=1e-5" in trained
    assert "--learning-rate" not in trained
    assert trained[trained.index("--lora-rank") + 1] == "4"
    assert trained[trained.index("--warmup-steps") + 1] == "20"


def test_without_arguments_it_explains_itself():
    found = subprocess.run(["sh", str(RUN)], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "--steps 1000" in found.stdout
