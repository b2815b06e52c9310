"""Fused, packed and quantised networks against the plain ones; conversions kept beside the model."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from tiny import noise, randomise, write_aed, write_lid
from torch.nn import functional as F

from vermilion import runtime
from vermilion.asr import AedRecognizer, DecodingOptions
from vermilion.checkpoints import prepared
from vermilion.checkpoints.reader import read_checkpoint
from vermilion.errors import OptionsError
from vermilion.lid import LanguageIdentifier
from vermilion.nn import packed
from vermilion.nn.conformer import ConformerConfig, ConformerEncoder
from vermilion.nn.decoder import DecoderConfig, TransformerDecoder
from vermilion.nn.packed import Int8Linear, PackedLinear
from vermilion.nn.punctuation import PunctuationConfig, PunctuationNetwork
from vermilion.runtime import Runtime
from vermilion.transcript import Recognition

needs_int8 = pytest.mark.skipif(not packed.int8_available(), reason="this build of torch has no int8 kernels here")
needs_packing = pytest.mark.skipif(
    not packed.float_packing_available(torch.float32), reason="this build of torch has no packed layers here"
)
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2, "int8": 8e-2}  # int8 loses more in such narrow layers
PRECISIONS = ["float32", "bfloat16", pytest.param("int8", marks=needs_int8)]


def relative(got, expected):
    return float((got.float() - expected).norm() / expected.norm())


def lively(network, seed):
    """Random weights with norms that scale and shift, so that a wrong fold shows."""
    randomise(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, p in network.named_parameters():
        if p.ndim == 1 and name.endswith("weight"):
            p.data = 1 + 0.3 * torch.randn(p.shape, generator=generator)
        elif "pos_bias" in name:
            p.data = torch.randn(p.shape, generator=generator)
    return network


def ready(build, seed, precision):
    """The same network plain and as it runs in a precision."""
    place = Runtime.of("cpu", precision)
    network = place.finish(place.prepare(lively(build(), seed)))
    return lively(build(), seed), network, place


@needs_int8
def test_an_int8_layer_is_near_the_float_one_and_answers_each_row_alone():
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48, 64), torch.randn(48), torch.randn(40, 64)
    x[7] *= 1000.0  # a loud neighbour must not take the others' resolution
    layer = Int8Linear.from_float(weight, bias)
    layer.pack()
    y, expected = layer(x), F.linear(x, weight, bias)
    assert max(relative(a, b) for a, b in zip(y, expected, strict=True)) < 0.03
    for row in (0, 7, 39):
        assert torch.equal(layer(x[row : row + 1])[0], y[row])
    assert torch.equal(layer(torch.zeros(2, 64)), bias.expand(2, -1))
    loud = torch.full((1, 64), 3e4)  # the largest sums: where a processor's 16-bit additions would overflow
    ones = Int8Linear.from_float(torch.ones(48, 64), None)
    ones.pack()
    torch.testing.assert_close(ones(loud), torch.full((1, 48), 64 * 3e4), rtol=1e-5, atol=0)


@needs_packing
@pytest.mark.parametrize("rows", [1, 3, 200])
def test_a_packed_layer_equals_the_plain_one(rows):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48, 64), torch.randn(48), torch.randn(rows, 64)
    torch.testing.assert_close(PackedLinear(weight, bias)(x), F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_encoder_in_every_precision(precision):
    plain, network, place = ready(lambda: ConformerEncoder(ConformerConfig(80, 32, 4, 3, 7)), 1, precision)
    x, lengths = torch.randn(3, 180, 80), torch.tensor([180, 60, 131])
    x *= (torch.arange(180) < lengths[:, None])[..., None]
    expected, frames = plain(x, lengths)
    for _ in range(2):  # the second time with kept tables
        got, same = network(x.to(place.dtype), lengths)
        assert same.tolist() == frames.tolist()
        for a, b, n in zip(got, expected, frames.tolist(), strict=True):
            assert relative(a[:n], b[:n]) < TOLERANCE[precision]
    alone, _ = network(x[1:2, :60].to(place.dtype), lengths[1:2])
    difference = (alone[0].float() - got[1, : frames[1]].float()).abs().max()
    assert difference < (1e-4 if precision == "float32" else 0.3)


@torch.inference_mode()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_decoder_in_every_precision(precision):
    plain, network, place = ready(lambda: TransformerDecoder(DecoderConfig(20, 32, 4, 3)), 2, precision)
    network.cache_dtype = place.cache_dtype
    encoded, lengths, tokens = torch.randn(2, 9, 32), torch.tensor([9, 6]), torch.randint(0, 20, (2, 12))
    expected = plain(tokens, plain.remember(encoded, lengths))
    got = network(tokens, network.remember(encoded.to(place.dtype), lengths))
    assert relative(got, expected) < TOLERANCE[precision]


@torch.inference_mode()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_punctuation_in_every_precision(precision):
    plain, network, _ = ready(lambda: PunctuationNetwork(PunctuationConfig(30, 32, 2, 4, 64, 40, 5)), 3, precision)
    ids, lengths = torch.randint(0, 30, (2, 25)), torch.tensor([25, 11])
    expected, got = plain(ids, lengths), network(ids, lengths)
    assert relative(got[0], expected[0]) < TOLERANCE[precision]
    assert relative(got[1, :10], expected[1, :10]) < TOLERANCE[precision]


def test_features_computed_on_the_device_are_those_of_the_extractor(tmp_path):
    front = LanguageIdentifier.from_pretrained(write_lid(tmp_path)).front
    audio = [noise(s, i) for i, s in enumerate((1.3, 0.025, 0.7))]
    lengths = torch.tensor([len(a) for a in audio])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(a) for a in audio], batch_first=True)
    got, frames = front.log_mel(padded, lengths)
    for row, n, samples in zip(got, frames.tolist(), audio, strict=True):
        expected = front.features(samples)
        assert len(expected) == n
        np.testing.assert_allclose(row[:n].numpy(), expected, atol=1e-3)
        assert not row[n:].any()


@needs_int8
@pytest.mark.parametrize("search", ["beam", "greedy"])
def test_int8_answers_do_not_depend_on_batch_mates(tmp_path, search):
    recognizer = AedRecognizer.from_pretrained(write_aed(tmp_path), precision="int8")
    audio = [(noise(s, i), 16000) for i, s in enumerate((1.0, 0.4, 2.0, 1.5))]
    options = DecodingOptions(search=search)
    together = recognizer.recognize(audio, options)
    alone = [recognizer.recognize([a], options)[0] for a in audio]
    assert all(isinstance(r, Recognition) for r in together)
    assert [r.text for r in together] == [r.text for r in alone]


def test_names_of_precisions(monkeypatch):
    assert Runtime.of("cpu", "auto").precision in ("float32", "bfloat16")
    with pytest.raises(OptionsError, match="precision must be one of"):
        Runtime.of("cpu", "int4")
    with pytest.raises(OptionsError, match="int8 runs on the CPU only"):
        Runtime.of("meta", "int8")
    monkeypatch.setattr(packed, "int8_available", lambda: False)
    with pytest.raises(OptionsError, match="no int8 kernels"):
        Runtime.of("cpu", "int8")


def test_threads():
    before = torch.get_num_threads()
    try:
        assert runtime.set_threads(1) == torch.get_num_threads() == 1
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert set(blas) <= {1}  # voice activity's numpy too
        assert runtime.set_threads() == runtime.default_threads() >= 1
        with pytest.raises(OptionsError, match="negative"):
            runtime.set_threads(-1)
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def kept(monkeypatch):
    """Conversions of tiny models are kept too."""
    monkeypatch.setattr(prepared, "LEAST_BYTES", 0)


def texts(folder, precision):
    recognizer = AedRecognizer.from_pretrained(folder, precision=precision)
    return [r.text for r in recognizer.recognize([(noise(1.5, i), 16000) for i in range(3)])]


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("int8", marks=needs_int8)])
def test_a_conversion_is_made_once_and_again_when_the_model_changes(tmp_path, kept, monkeypatch, precision):
    folder = write_aed(tmp_path)
    first = texts(folder, precision)
    files = sorted(p.name for p in (folder / prepared.FOLDER).iterdir())
    assert files == [f"model.{part}.{precision}.safetensors" for part in ("ctc", "decoder", "encoder")]
    read = []
    monkeypatch.setattr(prepared, "load_strict", lambda *a, **k: read.append(a))
    assert texts(folder, precision) == first
    assert not read  # nothing was taken from the published file
    monkeypatch.undo()
    monkeypatch.setattr(prepared, "LEAST_BYTES", 0)
    write_aed(tmp_path, seed=9)
    assert texts(folder, precision) == texts(write_aed(tmp_path / "new", seed=9), precision)


@needs_int8
def test_a_damaged_conversion_is_made_again(tmp_path, kept, caplog):
    folder = write_aed(tmp_path)
    first = texts(folder, "int8")
    place = folder / prepared.FOLDER / "model.encoder.int8.safetensors"
    place.write_bytes(place.read_bytes()[:100])
    assert texts(folder, "int8") == first
    assert "damaged" in caplog.text
    assert place.stat().st_size > 100


@needs_int8
def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, kept):
    folder = write_lid(tmp_path)
    (folder / prepared.FOLDER).write_text("in the way")
    identifier = LanguageIdentifier.from_pretrained(folder, precision="int8")
    assert identifier.identify([(noise(1.0), 16000)])[0].language


def test_released_pages_are_read_again_from_the_file(tmp_path):
    values = torch.arange(1 << 18, dtype=torch.float32)
    torch.save({"args": {}, "model_state_dict": {"x": values.clone()}}, tmp_path / "model.pth.tar")
    checkpoint = read_checkpoint(tmp_path)
    release = prepared.PageReleaser(checkpoint.path)
    release(checkpoint.state["x"])
    assert torch.equal(checkpoint.state["x"], values)
    release(values)  # memory of the process itself is not touched
    assert torch.equal(values, checkpoint.state["x"])


KNOWN = ("command_zh", "hello_zh", "hello_en", "meeting_zh", "net_zh1", "read_zh", "syn_en1", "syn_mix1", "syn_zh2")


@needs_int8
@pytest.mark.parametrize("name", ["FireRedASR2-AED", "FireRedASR2-AED-k15"])
def test_int8_agrees_with_float32_on_trained_models(golden, name):
    files = [f for f in sorted((golden / "audio").rglob("*.wav")) if f.stem in KNOWN]
    exact = AedRecognizer.from_pretrained(golden / "checkpoints" / name)
    small = AedRecognizer.from_pretrained(golden / "checkpoints" / name, precision="int8")
    for expected, got in zip(exact.recognize(files), small.recognize(files), strict=True):
        assert [t.id for t in got.tokens] == [t.id for t in expected.tokens]
        assert np.allclose([w.start for w in got.words], [w.start for w in expected.words], atol=0.081)
    errors = [relative(small.encode([f])[0], exact.encode([f])[0]) for f in files]
    assert float(np.mean(errors)) < 0.05
