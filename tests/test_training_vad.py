"""The detectors' recipe on made-up sounds: the network is that of inference; it learns, resumes exactly, publishes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")

from test_training_mixes import RATE, UNCHANGED, buzz, silence, write  # noqa: E402
from tiny import write_aed  # noqa: E402
from training_helpers import options  # noqa: E402

from vermilion import PipelineOptions, load  # noqa: E402
from vermilion.checkpoints.reader import read_checkpoint  # noqa: E402
from vermilion.errors import CheckpointError, OptionsError, TrainingError  # noqa: E402
from vermilion.manifests import read_manifest, write_manifest  # noqa: E402
from vermilion.nn.dfsmn import Dfsmn, DfsmnConfig  # noqa: E402
from vermilion.nn.dfsmn_torch import DfsmnNetwork, filter_rows  # noqa: E402
from vermilion.training.log import read_metrics  # noqa: E402
from vermilion.training.mixes import MixOptions  # noqa: E402
from vermilion.training.publish import publish  # noqa: E402
from vermilion.training.vad import balanced_loss, train_detector  # noqa: E402
from vermilion.training.vad_options import DetectorOptions  # noqa: E402
from vermilion.vad.offline import EventDetector, VoiceActivityDetector  # noqa: E402
from vermilion.vad.streaming import StreamingVoiceActivityDetector  # noqa: E402

TINY = DetectorOptions(
    batch=4, workers=0, statistics_mixes=6, validation_mixes=0, blocks=2, hidden=24, projection=12, look_back=5,
    look_ahead=4,
)  # fmt: skip
MIX = MixOptions(seconds=2.0, noise_snr_db=(5, 20), music_snr_db=(0, 10), gap_seconds=(0.2, 1.0))


@pytest.fixture(scope="module")
def manifests(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    kinds = {
        "speech": [np.concatenate([silence(0.1), buzz(0.4, f), silence(0.1)]) for f in rng.uniform(100, 220, 6)],
        "music": [sum(buzz(2.5, f * k) for k in (2.0, 2.5, 3.0)) / 3 for f in (220, 260, 330)],
        "noise": [rng.normal(0, 0.1, RATE).astype(np.float32) for _ in range(3)],
    }
    found = {}
    for kind, sounds in kinds.items():
        write_manifest(folder / f"{kind}.jsonl", [write(folder, f"{kind}{i}", s) for i, s in enumerate(sounds)])
        found[kind] = [folder / f"{kind}.jsonl"]
    return found


def run(manifests: dict, folder: Path, steps: int, recipe: DetectorOptions = TINY, **more):
    training = options(folder, steps, **more)
    return train_detector(manifests, options=recipe, training=training, mix=MIX, augment=UNCHANGED)


def weights(folder: Path) -> dict:
    return read_checkpoint(folder / "model").state


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    "config",
    [
        DfsmnConfig(R=3, H=32, P=16),
        DfsmnConfig(R=2, H=32, P=16, N2=0, S2=0),
        DfsmnConfig(R=3, M=2, H=24, P=12, N1=5, S1=2, N2=4, S2=3, odim=3),
        DfsmnConfig(R=1, M=0, H=24, P=12, N1=1, N2=1, odim=2),
    ],
)
@pytest.mark.parametrize("frames", [1, 7, 150])
def test_the_network_is_that_of_inference(config, frames):
    torch.manual_seed(0)
    network = DfsmnNetwork(config).eval()
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == config.keys()
    features = torch.randn(2, frames, config.idim)
    ours = torch.sigmoid(network(features)).detach().numpy()
    plain = Dfsmn(config, {name: t.numpy() for name, t in network.state_dict().items()})
    for row, recording in zip(ours, features.numpy(), strict=True):
        np.testing.assert_allclose(row, plain(recording), atol=1e-5)


def test_derivatives_of_the_memory_are_those_of_a_convolution():
    torch.manual_seed(0)
    signal = torch.randn(3, 2, 75, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 75, dtype=torch.float64)
    padded = torch.nn.functional.pad(signal.transpose(0, 1), (4, 2))
    plain = torch.nn.functional.conv1d(padded, taps[:, None], groups=3).transpose(0, 1)
    ours = filter_rows(signal, taps, 4)
    assert torch.allclose(ours, plain)
    expected = torch.autograd.grad((plain * weight).sum(), (signal, taps))
    found = torch.autograd.grad((ours * weight).sum(), (signal, taps))
    assert all(torch.allclose(x, y) for x, y in zip(found, expected, strict=True))


def test_balance():
    logits, targets = torch.tensor([[[0.3], [-0.2]]]), torch.tensor([[[1.0], [0.0]]])
    expected = -(3 * torch.log(torch.sigmoid(torch.tensor(0.3))) + torch.log(1 - torch.sigmoid(torch.tensor(-0.2)))) / 2
    assert torch.allclose(balanced_loss(logits, targets, torch.tensor([3.0])), expected)


def test_it_learns_and_the_detector_and_the_pipeline_load_it(manifests, tmp_path):
    recipe = replace(TINY, validation_mixes=8)
    outcome = run(manifests, tmp_path / "t", 50, recipe, ema_decay=0.9, validate_every=25, learning_rate=1e-2)
    assert outcome.finished
    rows = list(read_metrics(tmp_path / "t" / "metrics.jsonl"))
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    assert outcome.validation["valid_speech_f1"] > 0.8
    found = read_checkpoint(tmp_path / "t" / "model").args
    sizes = {"idim": 80, "R": 2, "M": 1, "H": 24, "P": 12, "N1": 5, "S1": 1, "N2": 4, "S2": 1, "odim": 1}
    assert {name: found[name] for name in sizes} == sizes
    clip = np.concatenate([silence(1.0), buzz(1.0, 160), silence(1.0)])
    clip += np.random.default_rng(0).normal(0, 0.001, len(clip)).astype(np.float32)
    probabilities = VoiceActivityDetector.from_pretrained(tmp_path / "t" / "model").detect((clip, RATE)).probabilities
    assert probabilities[110:190].mean() > probabilities[10:90].mean() + 0.4

    (tmp_path / "models" / "FireRedVAD").mkdir(parents=True)
    (tmp_path / "models" / "FireRedVAD" / "VAD").symlink_to(tmp_path / "t" / "model")
    write_aed(tmp_path / "models" / "FireRedASR2-AED")
    off = PipelineOptions(recognizer="aed", lid=False, punctuation=False, events=False, route="never")
    heard = load(tmp_path / "models", options=off).transcribe((clip, RATE)).segments
    assert heard
    assert 0.7 < heard[0].start < 1.3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_in_parts_is_the_training_in_one(manifests, tmp_path, workers):
    recipe = replace(TINY, dropout=0.2, workers=workers)
    run(manifests, tmp_path / "a", 5, recipe)
    for steps in (2, 3, 5):
        run(manifests, tmp_path / "b", steps, recipe)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_streams_and_events(manifests, tmp_path):
    run(manifests, tmp_path / "stream", 2, replace(TINY, kind="stream"))
    run(manifests, tmp_path / "events", 2, replace(TINY, kind="events"))
    clip = np.concatenate([buzz(0.5), silence(0.5)])
    frames, _ = StreamingVoiceActivityDetector.from_pretrained(tmp_path / "stream" / "model").detect((clip, RATE))
    assert len(frames) == 98
    assert read_checkpoint(tmp_path / "stream" / "model").args["N2"] == 0
    result = EventDetector.from_pretrained(tmp_path / "events" / "model").detect((clip, RATE))
    assert result.probabilities.shape == (98, 3)


def test_fine_tuning_goes_on_from_the_weights_and_statistics(manifests, tmp_path):
    run(manifests, tmp_path / "first", 3)
    before = weights(tmp_path / "first")
    tuned = replace(TINY, init=tmp_path / "first" / "model", hidden=99)
    run(manifests, tmp_path / "second", 1, tuned, learning_rate=1e-9)
    after = weights(tmp_path / "second")
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)
    statistics = [(tmp_path / name / "model" / "cmvn.ark").read_bytes() for name in ("first", "second")]
    assert statistics[0] == statistics[1]
    with pytest.raises(CheckpointError, match="kind events"):
        run(manifests, tmp_path / "third", 1, replace(tuned, kind="events"))
    with pytest.raises(CheckpointError, match="kind stream"):
        run(manifests, tmp_path / "fourth", 1, replace(tuned, kind="stream"))


def test_a_teacher_is_followed(manifests, tmp_path):
    """With weight 1 the student of a teacher that says yes everywhere says yes everywhere."""
    run(manifests, tmp_path / "teacher", 1)
    plain = read_checkpoint(tmp_path / "teacher" / "model")
    state = plain.state | {"out.bias": torch.tensor([30.0])}
    publish(tmp_path / "yes", plain.args, state, files=[tmp_path / "teacher" / "cmvn.ark"])
    taught = replace(TINY, teacher=tmp_path / "yes", teacher_weight=1.0)
    run(manifests, tmp_path / "student", 25, taught, learning_rate=2e-2)
    detector = VoiceActivityDetector.from_pretrained(tmp_path / "student" / "model")
    assert detector.detect((silence(1.0), RATE)).probabilities.min() > 0.9
    with pytest.raises(CheckpointError, match="instead of 3"):
        run(manifests, tmp_path / "x", 1, replace(taught, kind="events"))


def test_what_cannot_be_trained_is_said(manifests, tmp_path):
    with pytest.raises(TrainingError, match="no manifest of music"):
        run({"speech": manifests["speech"]}, tmp_path / "a", 1, replace(TINY, kind="events"))
    with pytest.raises(TrainingError, match="no manifest of speech"):
        run({"music": manifests["music"]}, tmp_path / "b", 1)
    for wrong in ({"kind": "dogs"}, {"batch": 0}, {"teacher_weight": 2}, {"look_ahead": -1}):
        with pytest.raises(OptionsError):
            DetectorOptions(**wrong)


def test_a_recording_that_cannot_be_read_is_replaced_and_named(manifests, tmp_path):
    lines = read_manifest(manifests["speech"][0])
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    broken = [replace(lines[0], audio=str(tmp_path / "broken.wav")), *lines[1:]]
    wrong = replace(lines[2], id="wrong", extra={"segments": "all"})
    write_manifest(tmp_path / "speech.jsonl", [*broken, wrong])
    with (tmp_path / "speech.jsonl").open("a") as out:
        out.write("{\n")
    outcome = run({**manifests, "speech": [tmp_path / "speech.jsonl"]}, tmp_path / "a", 6, replace(TINY, workers=1))
    assert outcome.finished
    assert {lines[0].id, "wrong", "speech.jsonl, line 8"} >= set(outcome.skipped) >= {"speech.jsonl, line 8"}
    assert len(outcome.skipped) >= 2
    write_manifest(tmp_path / "none.jsonl", [replace(u, audio=str(tmp_path / "broken.wav")) for u in lines])
    with pytest.raises(TrainingError, match="recordings .* cannot be used"):
        run({**manifests, "speech": [tmp_path / "none.jsonl"]}, tmp_path / "b", 2)


def test_speech_alone_is_enough(manifests, tmp_path):
    assert run({"speech": manifests["speech"]}, tmp_path, 1).finished
