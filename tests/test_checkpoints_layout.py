"""Folders in exactly the published layout: depth, heads and vocabulary by the tensors, oddities borne, doubts said."""

import argparse
import json
import os
import pathlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from llm_helpers import write_llm
from punc_helpers import write_folder as write_punc
from tiny import LID_TOKENS, noise, save, write_aed, write_lid, write_sentencepiece, write_vad

from vermilion.asr import AedRecognizer, DecodingOptions, LlmRecognizer
from vermilion.asr.language_model import LORA_ALPHA, Lora
from vermilion.checkpoints import shapes
from vermilion.checkpoints.convert import convert
from vermilion.checkpoints.inspection import inspect, inspect_model
from vermilion.checkpoints.layout import decoder_layout, encoder_layout, layer_count
from vermilion.checkpoints.reader import Checkpoint, key_problems, read_checkpoint, read_dictionary, without_constants
from vermilion.cli import main
from vermilion.errors import CheckpointError
from vermilion.lid import LanguageIdentifier
from vermilion.punc import PunctuationRestorer
from vermilion.vad import VoiceActivityDetector

REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "golden" / "real-layout"
AUDIO = [(noise(1.0), 16000)]
BASE = {"idim": 80, "d_model": 1280, "n_head": 20, "n_layers_enc": 16, "n_layers_dec": 16, "kernel_size": 33}
QWEN = {
    **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
    **{"num_key_value_heads": 4, "vocab_size": 152064},
}


@pytest.fixture(scope="module")
def real():
    if not REAL.exists():
        pytest.skip(
            "the imitations of the published folders (../shared/golden/real-layout) are not beside this checkout"
        )
    return REAL


def edited(folder, args=None, state=None):
    """Change the model file of a folder."""
    data = torch.load(folder / "model.pth.tar", weights_only=False)
    data["args"] = argparse.Namespace(**{**vars(data["args"]), **(args or {})})
    data["model_state_dict"] |= state or {}
    torch.save(data, folder / "model.pth.tar")
    return folder


def text_of(folder):
    return AedRecognizer.from_pretrained(folder).recognize(AUDIO)[0].text


# ---- the published folders at full size, on the meta device


def full(real, name, **args):
    table = json.loads((real / "shapes.json").read_text(encoding="utf8"))[f"{name}/model.pth.tar"]
    state = {key: torch.empty(shape, device="meta") for key, shape in table.items()}
    return Checkpoint(pathlib.Path(name), {**BASE, **args}, state)


def given(checkpoint, *spare):
    state = without_constants(checkpoint.state)
    return {key: tuple(tensor.shape) for key, tensor in state.items() if key not in spare}


def test_every_tensor_of_the_published_recogniser_has_its_place(real):
    checkpoint = full(real, "FireRedASR2-AED", odim=8667)
    expected = shapes.encoder_shapes(checkpoint) | shapes.decoder_shapes(checkpoint, "decoder.")
    expected |= shapes.ctc_shapes(checkpoint)
    assert len(checkpoint.state) == 942
    assert key_problems(expected, given(checkpoint, "decoder.tgt_word_prj.weight")) == []
    assert len(expected) == 942 - 3, "two position tables and the tied matrix are not needed"


def test_every_tensor_of_the_published_identifier_has_its_place(real):
    checkpoint = full(real, "FireRedLID", lid_odim=120, n_layers_lid_dec=6)
    layout = decoder_layout(checkpoint, "lid_decoder.")
    assert (layout.sizes["n_layers_dec"], layout.sizes["vocabulary"], layout.remarks) == (6, 120, ())
    expected = shapes.encoder_shapes(checkpoint) | shapes.decoder_shapes(checkpoint, "lid_decoder.")
    assert len(checkpoint.state) == 700
    assert key_problems(expected, given(checkpoint, "lid_decoder.tgt_word_prj.weight")) == []


def test_every_tensor_of_the_published_large_recogniser_has_its_place(real):
    checkpoint = full(real, "FireRedASR2-LLM")
    assert len(checkpoint.state) == 947
    own = {k: v for k, v in given(checkpoint).items() if not k.startswith("llm.")}
    assert key_problems(shapes.encoder_shapes(checkpoint) | shapes.adapter_shapes(1280, 3584, 2), own) == []
    lora = Lora.of(checkpoint.state, checkpoint.path)
    assert len(lora.state) == 392
    assert {scale for *_, scale in lora} == {LORA_ALPHA / 64} == {0.25}


def test_every_tensor_of_the_published_restorer_has_its_place(real):
    checkpoint = full(real, "FireRedPunc")
    bert = {
        **{"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        **{"intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": 21128},
        **{"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    }
    assert len(checkpoint.state) == 199
    assert key_problems(shapes.punctuation_shapes(bert, 5), given(checkpoint)) == []


@pytest.mark.parametrize(("sizes", "count"), [({}, 45), ({"N2": 0, "S2": 0}, 37), ({"odim": 3}, 45)])
def test_detectors_have_as_many_tensors_as_published(sizes, count):
    args = {"idim": 80, "R": 8, "M": 1, "H": 256, "P": 128, "N1": 20, "S1": 1, "N2": 20, "S2": 1, "odim": 1, **sizes}
    state = {f"dfsmn.fsmns.{i}.fc2.weight": torch.empty(1) for i in range(7)}
    assert len(shapes.detector_shapes(Checkpoint(pathlib.Path("x"), args, state))) == count


def test_the_imitations_load_run_convert_and_pass(real, tmp_path, capsys):
    copies = tmp_path / "models"
    convert(real / "checkpoints", target=copies)
    for root in (real / "checkpoints", copies):
        recogniser = AedRecognizer.from_pretrained(root / "FireRedASR2-AED")
        assert recogniser.recognize(AUDIO, DecodingOptions(guards=False))[0].words
        identifier = LanguageIdentifier.from_pretrained(root / "FireRedLID")
        assert len(identifier.decoder.layers) == 6
        assert (len(identifier.languages), len(identifier.dialects)) == (106, 8)
        assert identifier.identify(AUDIO)[0].language
        assert PunctuationRestorer.from_pretrained(root / "FireRedPunc").restore(["你好世界"])
        VoiceActivityDetector.from_pretrained(root / "FireRedVAD" / "VAD").detect(AUDIO[0])
        large = LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", aed_dir=root / "FireRedASR2-AED")
        assert large.recognize(AUDIO, DecodingOptions(max_tokens=3))[0].model == "FireRedASR2-LLM"
        assert main(["models", "check", str(root), "--json"]) == 0
        found = {row["model"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
        assert found.keys() == {"FireRedASR2-AED", "FireRedASR2-LLM", "FireRedLID", "FireRedPunc", "FireRedVAD"}
        assert not any(row["problems"] for row in found.values())


# ---- what the tensors say wins


def test_the_identifiers_depth_is_that_of_its_file(tmp_path, caplog):
    folder = write_lid(tmp_path / "lid")
    assert read_checkpoint(folder).args["n_layers_dec"] == 16
    assert len(LanguageIdentifier.from_pretrained(folder).decoder.layers) == 2
    assert not caplog.records
    edited(folder, {"n_layers_lid_dec": 5})
    assert len(LanguageIdentifier.from_pretrained(folder).decoder.layers) == 2
    assert "n_layers_lid_dec is 5, but the file holds 2 layers" in caplog.text


def test_files_before_the_new_name_mean_their_own_depth(tmp_path, caplog):
    folder = write_lid(tmp_path / "lid")
    data = torch.load(folder / "model.pth.tar", weights_only=False)
    del data["args"].n_layers_lid_dec
    data["args"].n_layers_dec = 2
    torch.save(data, folder / "model.pth.tar")
    assert LanguageIdentifier.from_pretrained(folder).identify(AUDIO)[0].language in LID_TOKENS
    assert not caplog.records


def test_missing_layers_are_an_error(tmp_path):
    folder = write_aed(tmp_path / "aed")
    data = torch.load(folder / "model.pth.tar", weights_only=False)
    state = data["model_state_dict"]
    data["model_state_dict"] = {k: v for k, v in state.items() if not k.startswith("decoder.layer_stack.0.")}
    torch.save(data, folder / "model.pth.tar")
    with pytest.raises(CheckpointError, match=r"decoder\.layer_stack\. has no number 0"):
        AedRecognizer.from_pretrained(folder)
    assert layer_count(state, "decoder.layer_stack.") == 2
    assert layer_count(state, "lid_decoder.layer_stack.") == 0


def test_heads_are_those_of_the_position_bias(tmp_path, caplog):
    folder = write_aed(tmp_path / "aed")
    text = text_of(folder)
    assert text_of(edited(folder, {"layer_n_head": 4})) == text
    assert not caplog.records
    assert text_of(edited(folder, {"n_head": 4})) == text
    assert "n_head is 4" in caplog.text


def test_the_output_matrix_wins_over_the_embedding(tmp_path, caplog):
    folder = write_aed(tmp_path / "aed")
    other = read_checkpoint(write_aed(tmp_path / "other", seed=9)).state["decoder.tgt_word_emb.weight"].clone()
    key = "decoder.tgt_word_{}.weight".format
    edited(folder, state={key("prj"): other})
    text = text_of(folder)
    assert "tgt_word_prj differs" in caplog.text
    assert text == text_of(edited(folder, state={key("emb"): other}))
    convert(folder)
    assert text_of(folder) == text


def test_sizes_that_contradict_are_said_and_borne(tmp_path, caplog):
    folder = edited(write_aed(tmp_path / "aed"), {"odim": 99, "n_layers_enc": 7})
    assert text_of(folder) == text_of(write_aed(tmp_path / "same"))
    assert "odim is 99, but the embedding has 15 rows" in caplog.text
    assert "n_layers_enc is 7" in caplog.text
    with pytest.raises(CheckpointError, match="a whole number of at most"):
        encoder_layout(replace(read_checkpoint(folder), args={**BASE, "d_model": "16"}))


def test_tensors_that_nobody_needs_are_passed_over(tmp_path):
    extra = {
        "encoder.layer_stack.0.conv.batch_norm.num_batches_tracked": torch.tensor(3),
        "encoder.positional_encoding.pe": torch.zeros(1, 9, 16),
    }
    folder = edited(write_aed(tmp_path / "aed"), state=extra)
    assert text_of(folder) == text_of(write_aed(tmp_path / "same"))
    write_punc(tmp_path / "punc")
    odd = {"bert.pooler.dense.weight": torch.zeros(2, 2), "bert.embeddings.position_ids": torch.arange(4)}
    assert PunctuationRestorer.from_pretrained(edited(tmp_path / "punc", state=odd)).restore(["你好"])


# ---- the encoder of the large recogniser


def test_an_encoder_file_may_hold_arguments_alone_or_the_weights(tmp_path):
    published, other = write_llm(tmp_path / "a"), write_llm(tmp_path / "b")
    own = read_checkpoint(other)
    first = {k: v.clone() for k, v in own.state.items() if k.startswith("encoder.")}
    rest = {k: v.clone() for k, v in own.state.items() if k not in first}
    save(other / "asr_encoder.pth.tar", read_checkpoint(other, "asr_encoder.pth.tar").args, first)
    save(other / "model.pth.tar", own.args, rest)
    options = DecodingOptions(max_tokens=4)
    texts = [LlmRecognizer.from_pretrained(f).recognize(AUDIO, options)[0].text for f in (published, other)]
    assert texts[0] == texts[1]
    convert(published)
    assert LlmRecognizer.from_pretrained(published).recognize(AUDIO, options)[0].text == texts[0]
    save(other / "asr_encoder.pth.tar", read_checkpoint(other, "asr_encoder.pth.tar").args, {})
    with pytest.raises(CheckpointError, match=r"holds no encoder: neither asr_encoder\.pth\.tar nor"):
        LlmRecognizer.from_pretrained(other)


# ---- odd files


class Strange:
    def __init__(self, value):
        self.value = value


def test_foreign_objects_in_the_arguments_are_left_out_and_named(tmp_path, caplog):
    folder = write_aed(tmp_path / "aed")
    odd = {"save_dir": pathlib.PurePosixPath("/x"), "lr": np.float64(0.5), "extra": [{"deep": Strange(1)}]}
    edited(folder, odd)
    checkpoint = read_checkpoint(folder)
    assert not odd.keys() & checkpoint.args.keys()
    assert checkpoint.args["d_model"] == 16
    assert "extra, lr, save_dir" in checkpoint.remarks[1]
    assert "Strange" in caplog.text
    assert text_of(folder) == text_of(write_aed(tmp_path / "same"))
    convert(folder)
    assert text_of(folder) == text_of(tmp_path / "same")


def test_tensors_that_need_code_are_refused(tmp_path):
    folder = edited(write_aed(tmp_path / "aed"), state={"encoder.x": Strange(2)})
    with pytest.raises(CheckpointError, match="unsafe"):
        read_checkpoint(folder)


def test_the_format_before_torch_1_6_is_read(tmp_path):
    folder, same = write_aed(tmp_path / "aed"), write_aed(tmp_path / "same")
    data = torch.load(folder / "model.pth.tar", weights_only=False)
    torch.save(data, folder / "model.pth.tar", _use_new_zipfile_serialization=False)
    assert text_of(folder) == text_of(same)


def test_a_pointer_of_git_lfs_is_said(tmp_path):
    folder = write_aed(tmp_path / "aed")
    (folder / "model.pth.tar").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        AedRecognizer.from_pretrained(folder)


def test_dictionaries_as_people_edit_them(tmp_path):
    path = tmp_path / "dict.txt"
    path.write_bytes(b"\xef\xbb\xbf<blank> 0\r\n<unk>\t1\r\n\xe4\xbd\xa0  2")
    assert read_dictionary(path) == ["<blank>", "<unk>", "你"]
    path.write_text("a 0\nb 1\n\n", encoding="utf8")
    assert read_dictionary(path) == ["a", "b", " "]
    assert read_dictionary(path, 2) == ["a", "b"]
    assert read_dictionary(path, 3) == ["a", "b", " "]
    with pytest.raises(CheckpointError, match="has 3 entries, the model 7"):
        read_dictionary(path, 7)


def test_specials_are_forbidden_by_id_too(tmp_path):
    folder = write_lid(tmp_path / "lid")
    names = ["<b>", "<unk>", "<p>", "<s>", "<eos>", *LID_TOKENS[5:]]
    (folder / "dict.txt").write_text("\n".join(names), encoding="utf8")
    assert {2, 3} <= set(LanguageIdentifier.from_pretrained(folder)._forbidden)


def test_a_language_of_no_name_is_not_listed(tmp_path):
    folder = write_lid(tmp_path / "lid")
    names = [*LID_TOKENS[:7], "other", *LID_TOKENS[8:]]
    (folder / "dict.txt").write_text("\n".join(names), encoding="utf8")
    assert LanguageIdentifier.from_pretrained(folder).languages == ["zh", "en"]


# ---- models check


def everything(root):
    write_sentencepiece(write_aed(root / "FireRedASR2-AED"))
    write_lid(root / "FireRedLID")
    write_punc(root / "FireRedPunc")
    write_vad(root / "FireRedVAD" / "VAD")
    write_vad(root / "FireRedVAD" / "AED", outputs=3)
    write_llm(root / "FireRedASR2-LLM")
    (root / "FireRedASR2-LLM" / "dict.txt").touch()
    return root


def test_a_models_directory_is_checked(tmp_path, capsys):
    root = everything(tmp_path / "models")
    reports = {report.model: report for report in inspect(root)}
    assert all(report.runs for report in reports.values()), [r.problems for r in reports.values()]
    assert list(reports) == [
        "FireRedASR2-AED", "FireRedASR2-LLM", "FireRedLID", "FireRedPunc", "FireRedVAD-events", "FireRedVAD",
    ]  # fmt: skip
    assert reports["FireRedLID"].sizes["n_layers_dec"] == 2
    held = without_constants(read_checkpoint(root / "FireRedASR2-AED").state)
    used = sum(tensor.numel() for key, tensor in held.items() if not key.endswith("tgt_word_prj.weight"))
    assert reports["FireRedASR2-AED"].parameters == used
    assert main(["models", "check", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.count("will run") == 6
    assert "encoder takes memory of its own" in out


def test_a_folder_of_any_name_is_known_by_its_weights(tmp_path):
    folder = write_lid(tmp_path / "some thing")
    assert inspect_model(folder).model == "FireRedLID"
    assert inspect_model(write_vad(tmp_path / "v", look_ahead=0)).model == "FireRedVAD-stream"


def test_what_is_wrong_is_said(tmp_path, capsys):
    root = tmp_path / "models"
    aed, lid, vad = (
        write_aed(root / "FireRedASR2-AED"),
        write_lid(root / "FireRedLID"),
        write_vad(root / "FireRedVAD/VAD"),
    )
    (aed / "cmvn.ark").unlink()
    (lid / "dict.txt").write_text("zh 0\n", encoding="utf8")
    (vad / "model.pth.tar").write_bytes(b"no model")
    edited(aed, {"n_layers_dec": 3}, {"decoder.strange": torch.zeros(1)})
    assert main(["models", "check", str(root), "--json"]) == 1
    found = {row["model"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert not any(row["runs"] or row["memory_bytes"] for row in found.values())
    problems = " ".join(found["FireRedASR2-AED"]["problems"])
    assert "cmvn.ark is missing" in problems
    assert "unexpected decoder.strange" in problems
    assert "train_bpe1000.model is missing" in problems
    assert any("n_layers_dec is 3" in remark for remark in found["FireRedASR2-AED"]["remarks"])
    assert "has 1 entries, the model 10" in found["FireRedLID"]["problems"][0]
    assert "is not a checkpoint" in found["FireRedVAD"]["problems"][0]


def test_a_detectors_blocks_are_those_of_its_file(tmp_path, caplog):
    folder = edited(write_vad(tmp_path / "vad"), {"R": 7})
    same = write_vad(tmp_path / "same")
    found = [VoiceActivityDetector.from_pretrained(f).detect(AUDIO[0]).probabilities for f in (folder, same)]
    np.testing.assert_array_equal(*found)
    assert "R is 7, but the file holds 3 memory blocks" in caplog.text
    assert "R is 7" in inspect_model(folder).remarks[0]


def damaged(root, rng):
    """Damage one file of a models directory; returns its model folder."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size and p.name != "config.yaml")
    victim = files[rng.integers(len(files))]
    content = bytearray(victim.read_bytes())
    kind = rng.integers(4)
    if kind == 0:
        content = content[: rng.integers(len(content))]
    elif kind == 1:
        for place in rng.integers(len(content), size=16):
            content[place] ^= 1 << rng.integers(8)
    elif kind == 2:
        content = bytearray(files[rng.integers(len(files))].read_bytes())
    else:
        content = bytearray(rng.bytes(len(content)))
    victim.unlink()
    victim.write_bytes(content)
    return next(p for p in victim.parents if (p / "model.pth.tar").exists() or p == root)


def loads(folder, model):
    loaders = {
        "FireRedASR2-AED": AedRecognizer,
        "FireRedASR2-LLM": LlmRecognizer,
        "FireRedLID": LanguageIdentifier,
        "FireRedPunc": PunctuationRestorer,
        "FireRedVAD": VoiceActivityDetector,
    }
    try:
        loaders[model].from_pretrained(folder)
    except CheckpointError:
        return False
    return True


@pytest.mark.parametrize("seed", range(24))
def test_damaged_folders_end_in_a_report(tmp_path, seed):
    """What is said to run loads; what is damaged ends neither in a traceback nor in waiting."""
    root = everything(tmp_path / "models")
    folder = damaged(root, np.random.default_rng(seed))
    for report in inspect(root):
        assert report.runs or report.problems
        if report.folder == folder and report.runs and report.model in ("FireRedASR2-AED", "FireRedLID", "FireRedPunc"):
            assert loads(folder, report.model)


@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("FireRedVAD/VAD", {"R": "x"}),
        ("FireRedVAD/VAD", {"M": 10**9}),
        ("FireRedVAD/VAD", {"H": 10**9}),
        ("FireRedPunc", {"odim": "x"}),
        ("FireRedPunc", {"cls_id": 10**6}),
        ("FireRedASR2-AED", {"d_model": float("nan")}),
        ("FireRedLID", {"kernel_size": None}),
    ],
)
def test_hostile_sizes_are_refused_by_check_and_loader(tmp_path, model, args):
    root = everything(tmp_path / "models")
    report = inspect_model(edited(root / model, args))
    assert not report.runs
    assert not loads(root / model, model.partition("/")[0])


def test_the_language_model_of_the_large_recogniser_is_looked_at(tmp_path):
    def problems(change):
        root = write_llm(tmp_path / f"{change.__name__}")
        (root / "dict.txt").touch()
        change(root / "Qwen2-7B-Instruct")
        return " ".join(inspect_model(root).problems)

    def shard(qwen):
        next(qwen.glob("*.safetensors")).write_bytes(b"junk" * 99)

    def tokenizer(qwen):
        (qwen / "tokenizer.json").write_text("{")

    def width(qwen):
        config = json.loads((qwen / "config.json").read_text())
        (qwen / "config.json").write_text(json.dumps({**config, "hidden_size": "x"}))

    def layers(qwen):
        config = json.loads((qwen / "config.json").read_text())
        (qwen / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**9}))

    def lora(qwen):
        key = "llm.base_model.model.model.layers.1.mlp.up_proj.lora_A.default.weight"
        edited(qwen.parent, state={key: torch.zeros(4, 7)})

    assert "is damaged" in problems(shard)
    assert "tokenizer.json is damaged" in problems(tokenizer)
    assert "hidden_size is 'x'" in problems(width)
    assert "num_hidden_layers is 1000000000" in problems(layers)
    assert "LoRA weights of llm.base_model.model.model.layers.1.mlp.up_proj do not fit" in problems(lora)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of POSIX")
@pytest.mark.parametrize("name", ["dict.txt", "cmvn.ark", "model.pth.tar"])
def test_pipes_in_a_folder_are_not_waited_for(tmp_path, name):
    folder = write_lid(tmp_path / "lid")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert not inspect_model(folder).runs
    with pytest.raises(CheckpointError):
        LanguageIdentifier.from_pretrained(folder)


def test_settings_of_a_conversion_must_be_settings(tmp_path):
    from safetensors.torch import save_file

    folder = write_lid(tmp_path / "FireRedLID")
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", metadata={"args": "[1]"})
    assert "hyper-parameters of the type list" in inspect_model(folder).problems[0]


def test_one_folder_costs_no_other(tmp_path, capsys):
    good = write_lid(tmp_path / "FireRedLID")
    assert main(["models", "check", str(tmp_path / "none"), str(good)]) == 1
    out, err = capsys.readouterr()
    assert "will run" in out
    assert "not there" in err


def test_folders_that_are_none(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert main(["models", "check", str(tmp_path / "none")]) == 2
    assert main(["models", "check", str(tmp_path / "file")]) == 2
    assert main(["models", "check"]) == 2
    capsys.readouterr()
    assert main(["models", "check", str(tmp_path / "empty")]) == 1
    assert "will not run" in capsys.readouterr().out


def test_files_of_the_release_are_known(tmp_path, real):
    folder = write_lid(tmp_path / "FireRedLID")
    (folder / "cmvn.ark").write_bytes((real / "cmvn.ark").read_bytes())
    release = {file.name: file.release for file in inspect_model(folder).files}
    assert release == {"cmvn.ark": "release", "config.yaml": None, "dict.txt": "other", "model.pth.tar": "other"}


def test_a_pull_ends_with_the_check(tmp_path, capsys, monkeypatch):
    from vermilion.checkpoints import hub

    folder = write_lid(tmp_path / "FireRedLID")
    monkeypatch.setattr(hub, "pull", lambda *_, **__: folder)
    assert main(["pull", "FireRedLID"]) == 0
    out, err = capsys.readouterr()
    assert out == f"FireRedLID: {folder}\n"
    assert "will run" in err
    (folder / "cmvn.ark").unlink()
    assert main(["pull", "FireRedLID"]) == 1
    assert "cmvn.ark is missing" in capsys.readouterr().err
