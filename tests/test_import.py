"""Importing the package loads nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "av", "matplotlib", "faster_whisper", "huggingface_hub", "sentencepiece", "transformers", "rich")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_vermilion_is_light():
    assert loaded_after("import vermilion") == set()


def test_the_pipeline_itself_needs_no_network_library():
    assert loaded_after("from vermilion import Pipeline, PipelineOptions, Transcript") == set()


def test_public_names_resolve_and_unknown_ones_do_not():
    import vermilion

    assert all(getattr(vermilion, name) is not None for name in vermilion.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = vermilion.nonsense
