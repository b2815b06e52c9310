"""Standard streams that are closed, and folders without models."""

import sys

import pytest

from vermilion.checkpoints.catalogue import check_models_dir
from vermilion.cli import main
from vermilion.errors import CheckpointError


def test_closed_standard_error_says_nothing_and_costs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["models"]) == 0
    assert "FireRedVAD" in capsys.readouterr().out


def test_closed_standard_output_and_input_are_said(monkeypatch, capsys, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["transcribe", str(tmp_path / "a.wav")]) == 2
    assert main(["models"]) == 2
    assert capsys.readouterr().err.count("standard output is closed") == 2
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["transcribe", "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_no_input_at_all_is_wrong_usage(capsys, tmp_path):
    assert main(["vad", str(tmp_path / "nothing.wav")]) == 2
    assert main(["transcribe", str(tmp_path / "nothing.wav")]) == 2
    assert capsys.readouterr().err.count("there is no file") == 2


def test_a_language_is_refused_before_anything_is_loaded(capsys, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    assert main(["transcribe", str(tmp_path / "a.wav"), "--language", "Frensh"]) == 2
    assert "fr (French)" in capsys.readouterr().err


def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model; expected one of FireRedASR2-AED/"):
        check_models_dir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "dict.txt").touch()
    for folder in (tmp_path, tmp_path / "model"):
        with pytest.raises(CheckpointError, match="a training writes them when it finishes"):
            check_models_dir(folder)
    (tmp_path / "model" / "model.pth.tar").touch()
    with pytest.raises(CheckpointError, match="its model is"):
        check_models_dir(tmp_path)
