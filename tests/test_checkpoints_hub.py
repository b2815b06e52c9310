"""Downloads from a fake hub on the loopback interface, in both protocols."""

import logging

import huggingface_hub.constants
import pytest
from fake_hub import COMMIT, FakeHub, running

from vermilion.checkpoints import catalogue, hub, transfer
from vermilion.errors import CheckpointError, HubError, OptionsError

LARGE = bytes(range(256)) * 12000  # 3 MB: several blocks
AED = {
    "model.pth.tar": LARGE,
    "cmvn.ark": b"cmvn" * 100,
    "dict.txt": b"<blank> 0\n",
    "train_bpe1000.model": b"bpe" * 500,
    "README.md": b"# not needed",
    "evil.py": b"raise SystemExit",
    "other.bin": b"pickle",
}
HUBS = ("huggingface", "modelscope")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A running hub; every cache lies in the test's folder, waiting between tries takes no time."""
    with running(FakeHub(dict(AED))) as served:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "MODELSCOPE_TOKEN", "MODELSCOPE_DOMAIN", "MODELSCOPE_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv("VERMILION_MODELS", raising=False)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", served.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
        monkeypatch.setenv("VERMILION_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(transfer, "PAUSE", 0.0)
        monkeypatch.chdir(tmp_path)
        yield served


@pytest.mark.parametrize("name", HUBS)
def test_pull_fetches_what_is_needed_and_nothing_else(fake, name):
    seen = []
    folder = hub.pull("fireredasr2-aed", hub=name, progress=seen.append)
    assert (folder / "model.pth.tar").read_bytes() == LARGE
    assert {p.name for p in folder.iterdir() if p.name != ".pull.lock"} == set(
        catalogue.entry("FireRedASR2-AED").required
    )
    assert not any("evil" in p or "README" in p or "other" in p for p in fake.downloads())
    assert seen[-1].done == seen[-1].total == sum(len(AED[n]) for n in catalogue.entry("FireRedASR2-AED").required)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert catalogue.find("FireRedASR2-AED") == folder


@pytest.mark.parametrize("name", HUBS)
def test_a_second_pull_transfers_nothing(fake, name):
    first = hub.pull("FireRedASR2-AED", hub=name)
    count = len(fake.downloads())
    assert hub.pull("FireRedASR2-AED", hub=name) == first
    assert len(fake.downloads()) == count


@pytest.mark.parametrize("name", HUBS)
def test_finding_and_obtaining_what_is_cached_asks_no_hub(fake, name):
    folder = hub.pull("FireRedASR2-AED", hub=name)
    fake.requests.clear()
    assert hub.obtain("FireRedASR2-AED") == folder
    catalogue.status()
    assert fake.requests == []


@pytest.mark.parametrize("name", HUBS)
def test_a_connection_that_breaks_off_is_resumed(fake, name, tmp_path):
    fake.cut["model.pth.tar"] = 1_500_000
    folder = hub.pull("FireRedASR2-AED", hub=name, target=tmp_path / "models")
    assert (folder / "model.pth.tar").read_bytes() == LARGE
    ranges = [h["Range"] for _, p, h in fake.requests if "model.pth.tar" in p and "Range" in h]
    assert ranges == ["bytes=1500000-"]


@pytest.mark.parametrize("name", HUBS)
def test_a_part_of_an_earlier_run_is_resumed(fake, name, tmp_path):
    target = tmp_path / "models" / "FireRedASR2-AED"
    target.mkdir(parents=True)
    (target / "model.pth.tar.part").write_bytes(LARGE[:1000])
    assert hub.pull("FireRedASR2-AED", hub=name, target=tmp_path / "models") == target
    assert (target / "model.pth.tar").read_bytes() == LARGE
    assert not list(target.glob("*.part"))
    assert any(h.get("Range") == "bytes=1000-" for _, _, h in fake.requests)


def test_the_part_of_another_version_is_started_again(fake, tmp_path):
    target = tmp_path / "models" / "FireRedASR2-AED"
    target.mkdir(parents=True)
    (target / "model.pth.tar.part").write_bytes(b"old" * 100)
    folder = hub.pull("FireRedASR2-AED", target=tmp_path / "models")
    assert (folder / "model.pth.tar").read_bytes() == LARGE


def test_a_server_without_ranges_is_started_again(fake, tmp_path):
    fake.ranges = False
    fake.cut["model.pth.tar"] = 1_500_000
    folder = hub.pull("FireRedASR2-AED", target=tmp_path / "models")
    assert (folder / "model.pth.tar").read_bytes() == LARGE


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("file", ["model.pth.tar", "dict.txt"])  # SHA-256 of a large, git id of a small file
def test_content_that_fails_its_hash_is_refused_and_deleted(fake, name, file, tmp_path):
    fake.corrupt.add(file)
    with pytest.raises(HubError, match=f"{file}.*corrupt"):
        hub.pull("FireRedASR2-AED", hub=name, target=tmp_path / "models")
    assert not list((tmp_path / "models").rglob(f"{file}*"))


def test_a_stored_file_that_was_damaged_is_fetched_again(fake, tmp_path):
    folder = hub.pull("FireRedASR2-AED", target=tmp_path / "models")
    (folder / "model.pth.tar").write_bytes(bytes(len(LARGE)))
    hub.pull("FireRedASR2-AED", target=tmp_path / "models")
    assert (folder / "model.pth.tar").read_bytes() == LARGE


@pytest.mark.parametrize("name", HUBS)
def test_a_busy_hub_is_asked_again_and_a_refusal_is_not(fake, name, tmp_path):
    fake.busy = 2
    hub.pull("FireRedASR2-AED", hub=name, target=tmp_path / "models")
    fake.missing, fake.requests = True, []
    with pytest.raises(HubError, match="404.*other hub"):
        hub.pull("FireRedLID", hub=name)
    assert len(fake.requests) == 1


def test_a_hub_that_stays_busy_is_given_up(fake):
    fake.busy = 99
    with pytest.raises(HubError, match="503"):
        hub.pull("FireRedASR2-AED")
    assert fake.busy == 99 - transfer.ATTEMPTS


@pytest.mark.parametrize("name", HUBS)
def test_tokens_are_sent_to_the_hub_alone_and_never_shown(fake, name, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    fake.token = "hf_very_secret"
    with pytest.raises(HubError, match="401.*token") as refused:
        hub.pull("FireRedASR2-AED", hub=name)
    monkeypatch.setenv("HF_TOKEN", fake.token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", fake.token)
    with running(FakeHub(dict(AED))) as storage:  # where the hub keeps large files: another host
        fake.redirect_to = storage.url
        hub.pull("FireRedASR2-AED", hub=name, target=tmp_path / "models")
        assert storage.downloads()
        assert not any(fake.token in str(h) for _, _, h in storage.requests)
    assert fake.token not in caplog.text + str(refused.value)


@pytest.mark.parametrize("name", HUBS)
def test_paths_that_lead_out_of_the_folder_are_refused(fake, name, tmp_path, monkeypatch):
    fake.extra_path = "chinese-lert-base/../../../escape.json"
    fake.files = dict.fromkeys(("model.pth.tar", "chinese-lert-base/config.json", "out_dict"), b"x")
    fake.files |= dict.fromkeys(("chinese-bert-wwm-ext_vocab.txt", "chinese-lert-base/vocab.txt"), b"x")
    with pytest.raises(HubError, match="outside"):
        hub.pull("FireRedPunc", hub=name, target=tmp_path / "models")
    assert not list(tmp_path.rglob("escape.json"))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "c:/x", "a\\..\\x"])
def test_safe_path_refuses(path, tmp_path):
    with pytest.raises(HubError):
        transfer.safe_path(tmp_path, path)


@pytest.mark.parametrize("name", HUBS)
def test_a_repository_without_a_required_file_is_refused(fake, name):
    del fake.files["cmvn.ark"]
    with pytest.raises(HubError, match=r"lacks cmvn\.ark"):
        hub.pull("FireRedASR2-AED", hub=name)
    assert fake.downloads() == []


@pytest.mark.parametrize("name", HUBS)
def test_offline_mode_never_asks_and_uses_what_is_there(fake, name, monkeypatch):
    folder = hub.pull("FireRedASR2-AED", hub=name)
    fake.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("MODELSCOPE_OFFLINE", "1")
    assert hub.pull("FireRedASR2-AED", hub=name) == folder
    with pytest.raises(HubError, match="offline mode"):
        hub.pull("FireRedLID", hub=name)
    assert fake.requests == []


def test_an_unreachable_hub_is_named(fake, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"127\.0\.0\.1:9.*HF_ENDPOINT"):
        hub.pull("FireRedASR2-AED")


@pytest.mark.parametrize("name", HUBS)
def test_one_repository_fills_three_models(fake, name, tmp_path):
    fake.files = {f"{f}/{n}": f.encode() for f in ("VAD", "Stream-VAD", "AED") for n in ("model.pth.tar", "cmvn.ark")}
    folder = hub.pull("FireRedVAD-events", hub=name, target=tmp_path / "models")
    assert folder == tmp_path / "models" / "FireRedVAD" / "AED"
    for known in ("FireRedVAD", "FireRedVAD-stream", "FireRedVAD-events"):
        assert catalogue.find(known, tmp_path / "models") is not None
    cached = hub.pull("FireRedVAD", hub=name)
    assert catalogue.find("FireRedVAD") == cached


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("with_target", [True, False])
def test_the_llm_brings_its_language_model_from_another_repository(fake, name, with_target, tmp_path):
    qwen = catalogue.entry("FireRedASR2-LLM").parts[0]
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    repository = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": str(shards).replace("'", '"').encode(),
        "model-1.safetensors": b"1" * 2000,
        "model-2.safetensors": b"2" * 2000,
        "modeling.py": b"raise SystemExit",
    }
    fake.repositories = {qwen.hugging_face: repository, qwen.modelscope: repository}
    fake.files = dict.fromkeys(catalogue.entry("FireRedASR2-LLM").required, b"x")
    folder = hub.pull("FireRedASR2-LLM", hub=name, target=tmp_path / "models" if with_target else None)
    assert (folder / qwen.folder / "model-2.safetensors").read_bytes() == b"2" * 2000
    assert not (folder / qwen.folder / "modeling.py").exists()
    assert catalogue.find("FireRedASR2-LLM", tmp_path / "models" if with_target else None) == folder
    (folder / qwen.folder / "model-2.safetensors").unlink()
    entry = catalogue.entry("FireRedASR2-LLM")
    assert catalogue.missing_files(folder, entry) == ["Qwen2-7B-Instruct/model-2.safetensors"]


def test_the_hugging_face_cache_is_the_one_that_its_own_tools_read(fake):
    folder = hub.pull("FireRedASR2-AED")
    assert folder.name == COMMIT
    own = huggingface_hub.try_to_load_from_cache(
        "FireRedTeam/FireRedASR2-AED", "dict.txt", cache_dir=huggingface_hub.constants.HF_HUB_CACHE
    )
    assert own is not None
    assert own == str(folder / "dict.txt")


def test_what_cannot_be_pulled_says_why(fake):
    with pytest.raises(CheckpointError, match="known are"):
        hub.pull("FireRedASR3")
    with pytest.raises(OptionsError, match="starter"):
        hub.pull("Whisper-base")
    with pytest.raises(OptionsError, match="hub must be"):
        hub.pull("FireRedLID", hub="elsewhere")
