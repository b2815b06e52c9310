"""Conversion to safetensors and the starter set's parts."""

import argparse
import hashlib
import json
import tracemalloc

import pytest
import torch

from vermilion.checkpoints import catalogue, convert, starter
from vermilion.checkpoints.reader import read_checkpoint
from vermilion.errors import CheckpointError, MissingDependencyError, OptionsError


def tensors():
    torch.manual_seed(7)
    tied = torch.randn(11, 8)
    return {
        "encoder.w": torch.randn(5, 8),
        "encoder.half": torch.randn(3, 3).half(),
        "encoder.b16": torch.randn(4).bfloat16(),
        "encoder.steps": torch.tensor(17),
        "encoder.odd": torch.tensor([True, False, True]),
        "encoder.nothing": torch.zeros(0, 4),
        "encoder.nan": torch.tensor([float("nan"), 1.0]),
        "encoder.turned": torch.randn(6, 4).T,
        "encoder.positional_encoding.pe": torch.randn(1, 9, 8),
        "decoder.tgt_word_emb.weight": tied,
        "decoder.tgt_word_prj.weight": tied,
    }


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "models" / "FireRedASR2-AED"
    path.mkdir(parents=True)
    args = argparse.Namespace(idim=80, n_head=2, name="模型", rate=0.1, flag=True, nothing=None)
    torch.save({"args": args, "model_state_dict": tensors()}, path / "model.pth.tar")
    for name in ("cmvn.ark", "dict.txt", "train_bpe1000.model"):
        (path / name).write_bytes(name.encode())
    return path


def test_every_tensor_and_setting_survives_except_constant_tables(folder):
    before = read_checkpoint(folder)
    assert convert.convert(folder) == [folder / "model.safetensors"]
    after = read_checkpoint(folder)
    assert after.path.suffix == ".safetensors"
    assert after.args == before.args
    assert set(after.state) == set(before.state) - {"encoder.positional_encoding.pe"}
    for key, tensor in after.state.items():
        assert tensor.dtype == before.state[key].dtype
        assert tensor.shape == before.state[key].shape
        assert torch.equal(tensor.nan_to_num(), before.state[key].nan_to_num())


def test_a_fresh_conversion_is_kept_and_a_stale_one_replaced(folder):
    (path,) = convert.convert(folder)
    stamp = path.stat().st_mtime_ns
    convert.convert(folder)
    assert path.stat().st_mtime_ns == stamp
    torch.save({"args": {}, "model_state_dict": {"w": torch.ones(2000)}}, folder / "model.pth.tar")
    convert.convert(folder)
    assert set(read_checkpoint(folder).state) == {"w"}


def test_half_precision(folder, tmp_path):
    (path,) = convert.convert(folder, dtype="bfloat16")
    state = read_checkpoint(folder).state
    assert state["encoder.w"].dtype == torch.bfloat16
    assert state["encoder.steps"].dtype == torch.int64
    assert torch.equal(state["encoder.w"], tensors()["encoder.w"].bfloat16())
    assert convert.convert(folder) == [path]  # another dtype is another conversion
    assert read_checkpoint(folder).state["encoder.w"].dtype == torch.float32
    with pytest.raises(OptionsError, match="float16"):
        convert.convert(folder, dtype="int4")


def test_a_target_becomes_a_complete_model_folder(folder, tmp_path):
    target = tmp_path / "converted"
    (path,) = convert.convert(folder.parent, target=target)
    assert path == target / folder.name / "model.safetensors"
    assert not (folder / "model.safetensors").exists()
    assert not list(target.rglob("*.pth.tar"))
    assert catalogue.find("FireRedASR2-AED", target) == target / folder.name
    assert catalogue.missing_files(target / folder.name, catalogue.entry("FireRedASR2-AED")) == []


def test_the_whole_model_is_never_in_memory(tmp_path):
    pytest.importorskip("torch")
    state = {f"layer.{i}.w": torch.zeros(1 << 18) for i in range(32)}  # 1 MB each
    torch.save({"args": {}, "model_state_dict": state}, tmp_path / "model.pth.tar")
    tracemalloc.start()
    convert.convert(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_damage_is_reported_and_leaves_nothing(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"no \*\.pth\.tar"):
        convert.convert(tmp_path / "models" / "nowhere")
    data = (folder / "model.pth.tar").read_bytes()
    (folder / "model.pth.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        convert.convert(folder)
    assert {p.name for p in folder.iterdir()} == {"model.pth.tar", "cmvn.ark", "dict.txt", "train_bpe1000.model"}


def test_published_checkpoints(golden, tmp_path):
    source = golden / "checkpoints" / "FireRedASR2-AED"
    before = read_checkpoint(source)
    convert.convert(source, target=tmp_path / "FireRedASR2-AED")
    after = read_checkpoint(tmp_path / "FireRedASR2-AED")
    assert after.args == json.loads(json.dumps(before.args))
    assert {k for k in before.state if not k.endswith("positional_encoding.pe")} == set(after.state)
    assert all(torch.equal(after.state[k], before.state[k]) for k in after.state)


# ---- catalogue


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """No model anywhere: every place that is searched lies in the test's folder."""
    import huggingface_hub.constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VERMILION_MODELS", raising=False)
    monkeypatch.setenv("VERMILION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path


def fill(path, name="FireRedLID"):
    path.mkdir(parents=True, exist_ok=True)
    for file in catalogue.entry(name).required:
        (path / file).write_bytes(b"x")
    return path


def test_places_are_searched_in_order(bare, monkeypatch):
    assert catalogue.find("FireRedLID") is None
    found = []
    for place in (
        "ms/hub/xukaituo/FireRedLID",
        "ms/models/xukaituo/FireRedLID",
        "hf/models--FireRedTeam--FireRedLID/snapshots/abc",
        "cache/models/FireRedLID",
        "pretrained_models/FireRedLID",
        "own/FireRedLID",
    ):
        fill(bare / place)
        if place.startswith("own"):
            monkeypatch.setenv("VERMILION_MODELS", str(bare / "own"))
        found.append(catalogue.find("firered" + "LID").resolve())
        assert found[-1] == (bare / place).resolve()
    given = fill(bare / "given" / "FireRedLID")
    assert catalogue.find("FireRedLID", bare / "given") == given
    assert catalogue.find("FireRedLID", given) == given


def test_a_given_folder_wins_even_if_incomplete_and_others_are_passed_over(bare):
    complete = fill(bare / "cache" / "models" / "FireRedLID")
    (bare / "pretrained_models" / "FireRedLID").mkdir(parents=True)
    (bare / "pretrained_models" / "FireRedLID" / "dict.txt").write_text("x")
    assert catalogue.find("FireRedLID") == complete
    assert catalogue.find("FireRedLID", bare / "pretrained_models").name == "FireRedLID"
    assert catalogue.find("FireRedLID", bare / "pretrained_models") != complete
    with pytest.raises(CheckpointError, match="no models directory"):
        catalogue.find("FireRedLID", bare / "nowhere")


def test_status_names_what_is_missing(bare):
    by_name = {s.entry.name: s for s in catalogue.status()}
    assert set(by_name) == {e.name for e in catalogue.KNOWN}
    assert by_name["FireRedPunc"].path is None
    assert "out_dict" in by_name["FireRedPunc"].missing
    folder = fill(bare / "pretrained_models" / "FireRedLID")
    (folder / "cmvn.ark").unlink()
    status = {s.entry.name: s for s in catalogue.status()}["FireRedLID"]
    assert (status.complete, status.missing, status.size) == (False, ("cmvn.ark",), 2)


def test_a_conversion_stands_for_the_published_file(bare):
    folder = fill(bare / "pretrained_models" / "FireRedLID")
    (folder / "model.pth.tar").rename(folder / "model.safetensors")
    status = {s.entry.name: s for s in catalogue.status()}["FireRedLID"]
    assert status.complete
    assert status.converted


@pytest.mark.parametrize("name", ["FIREREDLID", "FireRedTeam/FireRedLID", "xukaituo/FireRedLID"])
def test_names(name):
    assert catalogue.entry(name).name == "FireRedLID"


# ---- starter


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Two tiny packages in place of the real ones."""
    content = {"data/model.bin.part1": b"first", "data/model.bin.part2": b"second"}
    companions = {n: n.encode() for n in ("config.json", "tokenizer.json", "vocabulary.json")}
    for (module, name), data in zip(starter._PARTS, content.values(), strict=True):
        file = tmp_path / "site" / module / name
        file.parent.mkdir(parents=True)
        (tmp_path / "site" / module / "__init__.py").write_text("raise SystemExit('imported')")
        file.write_bytes(data)
    for name, data in companions.items():
        (tmp_path / "site" / starter._PARTS[1][0] / "data" / name).write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("VERMILION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(starter, "_WEIGHTS_SHA256", hashlib.sha256(b"firstsecond").hexdigest())
    hashes = {n: hashlib.sha256(d).hexdigest() for n, d in companions.items()}
    monkeypatch.setattr(starter, "_COMPANIONS", hashes)
    return tmp_path


def test_the_parts_are_joined_once(parts):
    folder = starter.whisper_folder()
    assert (folder / "model.bin").read_bytes() == b"firstsecond"
    assert {p.name for p in folder.iterdir()} == {"model.bin", "config.json", "tokenizer.json", "vocabulary.json"}
    stamp = (folder / "model.bin").stat().st_mtime_ns
    assert starter.whisper_folder() == folder
    assert (folder / "model.bin").stat().st_mtime_ns == stamp


def test_a_damaged_part_leaves_no_model(parts):
    (parts / "site" / starter._PARTS[0][0] / starter._PARTS[0][1]).write_bytes(b"fIrst")
    with pytest.raises(CheckpointError, match="hash"):
        starter.whisper_folder()
    assert not list((parts / "cache").rglob("model.bin"))


def test_absent_packages_name_the_extra(monkeypatch, tmp_path):
    monkeypatch.setenv("VERMILION_CACHE", str(tmp_path))
    monkeypatch.setattr(starter, "_PARTS", (("no_such_package_1", "x"), ("no_such_package_2", "y")))
    with pytest.raises(MissingDependencyError, match=r"vermilion\[starter\]"):
        starter.whisper_folder()
