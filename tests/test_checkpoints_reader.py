"""Model files are read safely and strictly."""

import argparse
import os

import pytest
import torch

from vermilion.checkpoints.reader import load_strict, read_checkpoint, read_dictionary, require_files
from vermilion.errors import CheckpointError


def write(path, state, **args):
    torch.save({"args": argparse.Namespace(**args), "model_state_dict": state}, path)


def test_published_layout_is_read(tmp_path):
    write(tmp_path / "model.pth.tar", {"w": torch.ones(2, 3)}, idim=80, odim=5)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.args == {"idim": 80, "odim": 5}
    assert checkpoint.state["w"].shape == (2, 3)
    assert checkpoint.arg("idim") == 80
    with pytest.raises(CheckpointError, match="n_head"):
        checkpoint.arg("n_head")


class Evil:
    def __reduce__(self):
        return os.system, ("touch " + str(Evil.target),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    Evil.target = tmp_path / "ran"
    torch.save({"args": Evil(), "model_state_dict": {}}, tmp_path / "model.pth.tar")
    with pytest.raises(CheckpointError, match="unsafe"):
        read_checkpoint(tmp_path)
    assert not Evil.target.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"<html>404</html>" * 100])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "model.pth.tar").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.pth\.tar"):
        read_checkpoint(tmp_path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "model.pth.tar"
    write(path, {"w": torch.randn(100, 100)})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path)


def test_another_kind_of_checkpoint_is_refused(tmp_path):
    torch.save({"state": 1}, tmp_path / "model.pth.tar")
    with pytest.raises(CheckpointError, match="model_state_dict"):
        read_checkpoint(tmp_path)


def test_missing_files_are_named(tmp_path):
    (tmp_path / "dict.txt").write_text("a")
    with pytest.raises(CheckpointError, match=r"lacks cmvn.ark.*dict\.txt"):
        require_files(tmp_path, ["dict.txt", "cmvn.ark"])
    with pytest.raises(CheckpointError, match="no model folder"):
        require_files(tmp_path / "none", [])


def test_strict_loading_names_every_difference(tmp_path):
    module = torch.nn.Linear(3, 2)
    good = {k: torch.zeros_like(v) for k, v in module.state_dict().items()}
    load_strict(module, {**good, "pe": torch.zeros(1)}, tmp_path, ignore=["pe"])
    assert module.weight.abs().sum() == 0
    with pytest.raises(CheckpointError, match=r"missing bias.*unexpected extra.*weight has shape \(1,\)"):
        load_strict(module, {"weight": torch.zeros(1), "extra": torch.zeros(1)}, tmp_path)


def test_dictionaries(tmp_path):
    path = tmp_path / "dict.txt"
    path.write_text("<blank> 0\n<unk> 1\n\n▁A 3\n", encoding="utf8")
    assert read_dictionary(path) == ["<blank>", "<unk>", " ", "▁A"]
    path.write_text("a\n<space>\nb", encoding="utf8")
    assert read_dictionary(path) == ["a", " ", "b"]
    path.write_text("a 0\nb 2\n", encoding="utf8")
    with pytest.raises(CheckpointError, match="line 2"):
        read_dictionary(path)
    path.write_text("a\na\n", encoding="utf8")
    with pytest.raises(CheckpointError, match="twice"):
        read_dictionary(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_dictionary(path)
