"""vLLM: the layout it reads (names and shapes as its model has them), requests in process and over HTTP."""

import io
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from llm_helpers import QWEN, write_llm
from safetensors import safe_open
from tiny import noise, write_aed, write_sentencepiece, write_vad
from tokenizers import Tokenizer

from vermilion import PipelineOptions, load
from vermilion.asr import DecodingOptions, LlmRecognizer
from vermilion.asr.aligner import load_aligner
from vermilion.asr.vllm import HttpEngine, OfflineEngine, VllmRecognizer
from vermilion.asr.vllm_layout import write_vllm
from vermilion.audio import FeatureExtractor
from vermilion.cli import main
from vermilion.decoding.options import LlmOptions
from vermilion.errors import CheckpointError, MissingDependencyError, ModelError, OptionsError
from vermilion.nn.conformer import ConformerConfig, ConformerEncoder
from vermilion.runtime import Runtime
from vermilion.transcript import Failure

PROMPT = "<|im_start|>user\n<|AUDIO|>请转写音频为文字<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained_models")
    write_llm(folder / "FireRedASR2-LLM")
    write_sentencepiece(write_aed(folder / "FireRedASR2-AED"))
    write_vad(folder / "FireRedVAD" / "VAD")
    return folder


@pytest.fixture(scope="module")
def written(root):
    assert main(["convert", str(root / "FireRedASR2-LLM"), "--to", "vllm"]) == 0
    return root / "FireRedASR2-LLM-vllm"


# ---- layout


def vllm_name(key):
    """The renaming that vLLM's FireRedASR2 model does when it loads weights (version 0.33)."""
    renamed = {"llm.": "model.decoder.", "encoder.": "model.encoder.audio_encoder."}
    renamed |= {"encoder_projector.": "model.encoder_projector.", "net.0": "pre_layer_norm"}
    renamed |= {"net.1": "linear_expand", "net.4": "linear_project"}
    for old, new in renamed.items():
        key = key.replace(old, new)
    return key


def expected_parameters():
    """Names and shapes of that model at the tiny size."""
    shapes = {}
    for name, tensor in ConformerEncoder(ConformerConfig(80, 16, 2, 2, 7)).state_dict().items():
        if name.endswith("positional_encoding.pe"):
            continue
        renamed = re.sub(
            r"net\.(\d)", lambda m: {"0": "pre_layer_norm", "1": "linear_expand", "4": "linear_project"}[m[1]], name
        )
        shapes[f"model.encoder.audio_encoder.{renamed}"] = tuple(tensor.shape)
    width, inner = QWEN["hidden_size"], QWEN["intermediate_size"]
    shapes |= {"model.encoder_projector.linear1.weight": (width, 32), "model.encoder_projector.linear1.bias": (width,)}
    shapes |= {
        "model.encoder_projector.linear2.weight": (width, width),
        "model.encoder_projector.linear2.bias": (width,),
    }
    groups = width // QWEN["num_attention_heads"] * QWEN["num_key_value_heads"]
    for layer in range(QWEN["num_hidden_layers"]):
        base = f"model.decoder.model.layers.{layer}."
        for name, rows in (("q", width), ("k", groups), ("v", groups)):
            shapes[f"{base}self_attn.{name}_proj.weight"] = (rows, width)
            shapes[f"{base}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{base}self_attn.o_proj.weight"] = (width, width)
        shapes[f"{base}mlp.gate_proj.weight"] = shapes[f"{base}mlp.up_proj.weight"] = (inner, width)
        shapes[f"{base}mlp.down_proj.weight"] = (width, inner)
        shapes[f"{base}input_layernorm.weight"] = shapes[f"{base}post_attention_layernorm.weight"] = (width,)
    rows = QWEN["vocab_size"]
    shapes["model.decoder.model.embed_tokens.weight"] = shapes["model.decoder.lm_head.weight"] = (rows, width)
    shapes["model.decoder.model.norm.weight"] = (width,)
    return shapes


def tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            found |= {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    return found


def test_names_and_shapes_are_those_that_vllm_has(written):
    state = tensors(written)
    assert {vllm_name(k): tuple(t.shape) for k, t in state.items()} == expected_parameters()
    index = json.loads((written / "model.safetensors.index.json").read_text(encoding="utf8"))["weight_map"]
    assert index.keys() == state.keys()
    assert all((written / name).is_file() for name in index.values())


def test_lora_is_merged_and_the_published_files_stay(root, written):
    own = LlmRecognizer.from_pretrained(root / "FireRedASR2-LLM", merge_lora=True)
    plain = tensors(root / "FireRedASR2-LLM/Qwen2-7B-Instruct")
    state = tensors(written)
    key = "model.layers.1.mlp.up_proj.weight"
    assert not torch.equal(state[f"llm.{key}"], plain[key])
    assert torch.equal(state["llm.lm_head.weight"], plain["lm_head.weight"])
    x = torch.randn(3, QWEN["hidden_size"])
    layer = own.model.network.get_submodule("model.layers.1.mlp.up_proj")
    assert torch.allclose(layer(x), x @ state[f"llm.{key}"].T, atol=1e-4)


def test_settings_beside_the_weights(root, written):
    config = json.loads((written / "config.json").read_text(encoding="utf8"))
    assert config["architectures"] == ["FireRedASR2ForConditionalGeneration"]
    assert config["encoder_downsample_rate"] == 2
    assert config["audio_encoder_conf"] == {
        "idim": 80, "n_layers_enc": 2, "n_head": 2, "d_model": 16, "kernel_size": 7, "pe_maxlen": 50,
    }  # fmt: skip
    assert config["hidden_size"] == QWEN["hidden_size"]
    features = json.loads((written / "preprocessor_config.json").read_text(encoding="utf8"))
    ours = FeatureExtractor.from_cmvn(root / "FireRedASR2-LLM/cmvn.ark")
    assert features["means"] == pytest.approx(ours.mean.tolist())
    assert features["inverse_std_variences"] == pytest.approx(ours.inverse_std.tolist())
    assert (features["chunk_length"], features["max_length"], features["dither"]) == (40, 4000, 0.0)
    generation = json.loads((written / "generation_config.json").read_text(encoding="utf8"))
    assert (generation["repetition_penalty"], generation["do_sample"]) == (1.0, False)
    tokenizer = Tokenizer.from_file(str(written / "tokenizer.json"))
    speech = tokenizer.token_to_id("<|AUDIO|>")
    assert tokenizer.encode(PROMPT, add_special_tokens=False).ids.count(speech) == 1
    assert speech < config["vocab_size"]
    settings = json.loads((written / "tokenizer_config.json").read_text(encoding="utf8"))
    assert settings["added_tokens_decoder"][str(speech)]["content"] == "<|AUDIO|>"


def test_conversion_refuses_what_is_no_llm(root, tmp_path, capsys):
    assert main(["convert", str(root / "FireRedASR2-AED"), "--to", "vllm", "--target", str(tmp_path / "x")]) == 3
    assert "asr_encoder.pth.tar" in capsys.readouterr().err
    files = write_vllm(root / "FireRedASR2-LLM", tmp_path / "half", "bfloat16")
    assert files[0].suffix == ".safetensors"
    assert {t.dtype for t in tensors(tmp_path / "half").values()} == {torch.bfloat16}


# ---- over HTTP


class Server(ThreadingHTTPServer):
    """Answers as `vllm serve` does; `broken` makes it answer otherwise."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.broken, self.key = [], None, None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, status, content, kind="application/json"):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            return self.reply(401, {"error": "Unauthorized"})
        return self.reply(200, {"data": [{"id": "firered"}] if self.server.broken != "empty" else []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = self.headers["Content-Type"].split("boundary=")[1].encode()
        fields = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, content = part.strip(b"\r\n").partition(b"\r\n\r\n")
            fields[re.search(rb'name="(\w+)"', head)[1].decode()] = content
        samples, rate = soundfile.read(io.BytesIO(fields.pop("file")))
        self.server.requests.append((self.path, {k: v.decode() for k, v in fields.items()}, len(samples) / rate))
        if self.server.broken == "error" and len(samples) / rate > 2:
            return self.reply(500, {"error": {"message": "engine died"}})
        if self.server.broken == "html":
            return self.reply(200, b"<html>", "text/html")
        if self.server.broken == "shape":
            return self.reply(200, {"txt": ""})
        return self.reply(200, {"text": f"你好 {round(len(samples) / rate)}"})


@pytest.fixture
def server():
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def recordings(*seconds):
    return [(noise(s, i), 16000) for i, s in enumerate(seconds)]


def test_requests_and_answers(server):
    recognizer = VllmRecognizer(HttpEngine(server.url + "/v1/"))
    options = DecodingOptions(repetition_penalty=1.1)
    found = recognizer.recognize([*recordings(1.0, 3.0, 2.0), (np.zeros(100, np.float32), 16000)], options)
    assert [r.text for r in found] == ["你好 1", "你好 3", "你好 2", ""]
    assert len(server.requests) == 3, "nothing to hear, nothing sent"
    path, fields, _ = next(r for r in server.requests if round(r[2]) == 3)
    assert path == "/v1/audio/transcriptions"
    assert fields == {
        "model": "firered", "language": "zh", "response_format": "json", "temperature": "0",
        "repetition_penalty": "1.1", "max_completion_tokens": "37",
    }  # fmt: skip


def test_long_recordings_are_sent_in_pieces(server):
    [found] = VllmRecognizer(HttpEngine(server.url)).recognize(recordings(65.0))
    assert len(server.requests) == 2
    assert max(seconds for *_, seconds in server.requests) <= 40
    assert found.text.count("你好") == 2


def test_a_refused_request_costs_its_own_recording(server):
    recognizer = VllmRecognizer(HttpEngine(server.url))
    server.broken = "error"
    one, two = recognizer.recognize(recordings(1.0, 3.0))
    assert one.text == "你好 1"
    assert isinstance(two, Failure)
    assert "HTTP 500" in str(two.error)
    for kind in ("html", "shape"):
        server.broken = kind
        [found] = recognizer.recognize(recordings(1.0))
        assert isinstance(found.error, ModelError)


def test_servers_that_do_not_answer(server):
    with pytest.raises(OptionsError, match="address"):
        HttpEngine("file:///etc/passwd")
    for bad in ("http://host:port", "http://[", "localhost:8000"):
        with pytest.raises(OptionsError, match="address"):
            HttpEngine(bad)
    with pytest.raises(OptionsError, match="min_tokens"):
        VllmRecognizer(HttpEngine(server.url)).recognize(recordings(1.0), DecodingOptions(min_tokens=3))
    with pytest.raises(ModelError, match="vllm serve"):
        HttpEngine("http://127.0.0.1:9")
    server.broken = "empty"
    with pytest.raises(ModelError, match="no model"):
        HttpEngine(server.url)


def test_the_key_is_sent_and_not_shown(server, root, monkeypatch):
    server.key = "secret"
    with pytest.raises(ModelError, match="401") as caught:
        HttpEngine(server.url, api_key="wrong-key")
    assert "wrong-key" not in str(caught.value)
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    options = PipelineOptions(recognizer="llm", llm=LlmOptions(engine="vllm", url=server.url), vad=False, lid=False)
    result = load(root, options=options).transcribe((noise(2.0), 16000))
    assert result.failures == []
    assert result.text.startswith("你好")
    assert [w.text for w in result.words][:2] == ["你", "好"], "times by the CTC head of FireRedASR2-AED"
    assert result.models["asr"] == "FireRedASR2-LLM (vLLM)"


# ---- in this process


class FakeLlm:
    made = None

    def __init__(self, **settings):
        FakeLlm.made, self.settings, self.calls = self, settings, []

    def generate(self, requests, sampling, use_tqdm):
        self.calls.append((requests, sampling, use_tqdm))
        chance = SimpleNamespace(logprob=float(np.log(0.5)), decoded_token="你")
        end = {9: SimpleNamespace(logprob=-0.01, decoded_token="")}
        output = SimpleNamespace(text="你 ", token_ids=[7, 9], logprobs=[{7: chance}, end], finish_reason="stop")
        return [SimpleNamespace(outputs=[output]) for _ in requests]


@pytest.fixture
def fake(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLlm, lambda **settings: settings
    monkeypatch.setitem(sys.modules, "vllm", module)


def test_the_engine_in_this_process(fake, root):
    engine = OfflineEngine("folder", precision="bfloat16", gpus=2, context="泰勒")
    aligner = load_aligner(root / "FireRedASR2-AED", Runtime.of(), None)
    one, two = VllmRecognizer(engine, aligner).recognize(recordings(1.0, 3.0), DecodingOptions(max_tokens=5))
    assert FakeLlm.made.settings == {
        "model": "folder", "dtype": "bfloat16", "tensor_parallel_size": 2, "limit_mm_per_prompt": {"audio": 1},
    }  # fmt: skip
    [(requests, sampling, _)] = FakeLlm.made.calls
    assert "泰勒" in requests[0]["prompt"]
    samples, rate = requests[1]["multi_modal_data"]["audio"]
    assert (len(samples), rate) == (48000, 16000)
    assert sampling[0] == {
        "temperature": 0.0, "max_tokens": 5, "min_tokens": 0, "repetition_penalty": 1.0, "logprobs": 0,
    }  # fmt: skip
    assert (one.text, two.text) == ("你", "你")
    assert one.confidence == pytest.approx(0.5)
    assert [w.text for w in one.words] == ["你"]


def test_one_bad_piece_costs_no_other_in_process(fake, monkeypatch):
    engine = OfflineEngine("folder")
    generate = engine.model.generate

    def picky(requests, sampling, use_tqdm):
        if any(len(r["multi_modal_data"]["audio"][0]) > 40000 for r in requests):
            raise ValueError("too long")
        return generate(requests, sampling, use_tqdm)

    monkeypatch.setattr(engine.model, "generate", picky)
    one, two = VllmRecognizer(engine).recognize(recordings(1.0, 3.0), DecodingOptions(min_tokens=30))
    assert one.text == "你"
    assert "too long" in str(two.error)
    assert FakeLlm.made.calls[-1][1][0]["min_tokens"] == 12, "not above the limit of a short piece"


def test_the_prompt_is_that_of_the_published_model(fake):
    engine = OfflineEngine("folder")
    assert engine.prompt == PROMPT


def test_weights_in_the_layout_are_found(fake, root, written):
    options = PipelineOptions(recognizer="llm", llm=LlmOptions(engine="vllm"), lid=False)
    load(root, options=options)
    assert FakeLlm.made.settings["model"] == str(written)


def test_what_is_missing_is_said(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match=r"vermilion\[vllm\]"):
        OfflineEngine("folder")
    options = PipelineOptions(recognizer="llm", llm=LlmOptions(engine="vllm"), lid=False)
    write_vad(tmp_path / "FireRedVAD" / "VAD")
    with pytest.raises(CheckpointError, match="--to vllm"):
        load(tmp_path, options=options)
    with pytest.raises(OptionsError, match="prompt of its own"):
        LlmOptions(engine="vllm", url="http://x", context="y")
