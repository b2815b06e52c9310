"""What all recipes share: schedule, loop, checkpoints, averages, logs, publishing."""

import argparse
import math
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")

from torch import nn  # noqa: E402

from vermilion.checkpoints.reader import read_checkpoint, read_dictionary  # noqa: E402
from vermilion.errors import OptionsError, TrainingError  # noqa: E402
from vermilion.training.averaging import ExponentialAverage, mean_of_checkpoints  # noqa: E402
from vermilion.training.checkpoints import (  # noqa: E402
    FOLDER,
    random_state,
    read_training_checkpoint,
    set_random_state,
    training_checkpoints,
)
from vermilion.training.log import CURVE, METRICS, read_metrics  # noqa: E402
from vermilion.training.loop import begin, train  # noqa: E402
from vermilion.training.options import TrainingOptions  # noqa: E402
from vermilion.training.publish import publish, write_dictionary  # noqa: E402
from vermilion.training.schedules import learning_rate  # noqa: E402

BATCHES_PER_EPOCH = 5


def options(folder: Path, **more) -> TrainingOptions:
    base = TrainingOptions(
        output_dir=folder, steps=12, warmup_steps=3, learning_rate=0.02, save_every=4, keep=9, validate_every=0,
        log_every=2, threads=1, device="cpu",
    )  # fmt: skip
    return replace(base, **more)


def batches(epoch: int, index: int):
    while True:
        for number in range(index, BATCHES_PER_EPOCH):
            generator = torch.Generator().manual_seed(1000 * epoch + number)
            yield epoch, number, torch.randn(8, 4, generator=generator)
        epoch, index = epoch + 1, 0


def loss(network, batch):
    return {"loss": (network(batch) - batch).square().mean()}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 4))


def run(chosen: TrainingOptions, **more):
    started = begin(chosen)
    made = network()
    outcome = train(started, made, more.pop("loss", loss), more.pop("batches", batches), **more)
    return outcome, made


def weights(module: nn.Module) -> list:
    return [p.detach().clone() for p in module.parameters()]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize("more", [{}, {"accumulation": 3}, {"ema_decay": 0.9}, {"average_last": 3}])
def test_a_training_in_parts_is_the_training_in_one(tmp_path, more):
    whole, first = run(options(tmp_path / "a", **more))
    run(options(tmp_path / "b", steps=7, **more))
    parts, second = run(options(tmp_path / "b", **more))
    assert whole == parts
    assert whole.finished
    if "average_last" in more:  # the parts have one more checkpoint, that of step 7: others are averaged
        newest = [read_training_checkpoint(training_checkpoints(tmp_path / x)[-1]).weights for x in "ab"]
        assert all(torch.equal(newest[0][k], newest[1][k]) for k in newest[0])
    else:
        assert equal(first, second)
    assert not equal(first, run(options(tmp_path / "c", seed=1, **more))[1])


def test_the_log_of_a_resumed_training_has_each_step_once(tmp_path):
    run(options(tmp_path, steps=8))
    with (tmp_path / METRICS).open("a", encoding="utf8") as file:
        file.write('{"step": 10, "loss": 1.0}\n{"step": 11, "lo')  # what a killed run wrote after its checkpoint
    run(options(tmp_path))
    rows = list(read_metrics(tmp_path / METRICS))
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert all({"loss", "learning_rate", "gradient_norm", "epoch", "steps_per_second"} <= row.keys() for row in rows)
    assert rows[4]["loss"] != 1.0
    assert (tmp_path / CURVE).stat().st_size > 1000


def test_validation_and_progress(tmp_path):
    seen = []
    started = begin(options(tmp_path, validate_every=5), seen.append)
    made = network()
    outcome = train(
        started, made, loss, batches, validate=lambda n: {"loss": 1.0 if n.training else 0.5, "accuracy": 0.25}
    )
    assert outcome.validation == {"valid_loss": 0.5, "valid_accuracy": 0.25}
    validated = [row["step"] for row in read_metrics(tmp_path / METRICS) if "valid_loss" in row]
    assert validated == [5, 10, 12]
    assert {p.what for p in seen} >= {"training", "saving", "validating"}
    assert seen[-1].step == 12
    assert math.isfinite(seen[-1].loss)


def test_a_request_to_stop_saves_and_the_same_call_goes_on(tmp_path):
    whole, first = run(options(tmp_path / "a", save_every=100))

    def stop_at_five(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    stopped, _ = run(options(tmp_path / "b", save_every=100), before_step=stop_at_five)
    assert (stopped.step, stopped.finished) == (5, False)
    assert signal.getsignal(signal.SIGTERM) is handler
    resumed, second = run(options(tmp_path / "b", save_every=100))
    assert (resumed.step, resumed.finished) == (12, True)
    assert equal(first, second)
    assert whole == resumed


def test_training_outside_of_the_main_thread(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(options(tmp_path))[0].finished))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_time_limit_finishes(tmp_path):
    outcome, _ = run(options(tmp_path, steps=10**6, max_hours=1e-9))
    assert outcome.finished
    assert outcome.step == 1


def test_a_loss_that_is_no_number_stops_before_the_weights_are_lost(tmp_path):
    def poisoned(epoch, index):
        for *place, batch in batches(epoch, index):
            yield *place, batch * (math.nan if place == [1, 1] else 1.0)

    with pytest.raises(TrainingError, match=r"step 7 \(epoch 1, batch 1\)"):
        run(options(tmp_path), batches=poisoned)
    assert [p.stem for p in training_checkpoints(tmp_path)] == ["step-00000004", "step-00000006"]
    state = read_training_checkpoint(training_checkpoints(tmp_path)[0])
    assert all(bool(t.isfinite().all()) for t in state.weights.values())


def test_frozen_weights_are_neither_changed_nor_saved(tmp_path):
    started = begin(options(tmp_path))
    made = network()
    made[0].requires_grad_(False)
    before = weights(made[0])
    train(started, made, loss, batches)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(made[0]), strict=True))
    saved = read_training_checkpoint(training_checkpoints(tmp_path)[-1])
    assert sorted(saved.weights) == ["3.bias", "3.weight"]
    with pytest.raises(TrainingError, match="frozen"):
        train(begin(options(tmp_path / "b")), network().requires_grad_(False), loss, batches)


def test_gradient_accumulation_is_a_larger_batch(tmp_path):
    def joined(epoch, index):
        stream = batches(epoch, 2 * index)
        while True:
            a, b = next(stream), next(stream)
            yield a[0], a[1], torch.cat([a[2], b[2]])

    plain = {"clip_norm": 0, "steps": 2}
    started = begin(options(tmp_path / "a", accumulation=2, **plain))
    first = nn.Linear(4, 4)
    train(started, first, loss, batches)
    started = begin(options(tmp_path / "b", **plain))
    second = nn.Linear(4, 4)
    train(started, second, loss, joined)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weights(first), weights(second), strict=True))


def test_other_options_or_networks_are_refused(tmp_path):
    run(options(tmp_path, steps=4), settings={"data": "a", "options": {"size": 1}})
    with pytest.raises(TrainingError, match="size was 1 and is 2"):
        run(options(tmp_path), settings={"data": "a", "options": {"size": 2, "new": 0}})
    with pytest.raises(TrainingError, match=r"data was 'a' and is 'b'"):
        run(options(tmp_path), settings={"data": "b"})
    with pytest.raises(TrainingError, match="learning_rate was 0.02"):
        run(options(tmp_path, learning_rate=0.1), settings={"data": "a"})
    with pytest.raises(TrainingError, match="another network"):
        train(begin(options(tmp_path)), nn.Linear(4, 4), loss, batches, settings={"data": "a"})
    with pytest.raises(TrainingError, match="resume it"):
        begin(options(tmp_path, resume=False))


def test_a_half_written_or_hostile_checkpoint(tmp_path):
    run(options(tmp_path, steps=8))
    files = training_checkpoints(tmp_path)
    assert [f.name for f in files] == ["step-00000004.pt", "step-00000008.pt"]
    (tmp_path / FOLDER / "step-00000012.part").write_bytes(b"half")
    assert training_checkpoints(tmp_path) == files
    torch.save({"format": 1, "step": argparse.Namespace(x=os.system)}, files[-1])
    with pytest.raises(TrainingError, match="cannot read the checkpoint"):
        run(options(tmp_path))
    files[-1].write_bytes(b"PK no checkpoint")
    with pytest.raises(TrainingError, match="delete it"):
        run(options(tmp_path))


def test_old_checkpoints_are_deleted(tmp_path):
    run(options(tmp_path, save_every=2, keep=2))
    assert [p.stem for p in training_checkpoints(tmp_path)] == ["step-00000010", "step-00000012"]


def test_random_states_come_back():
    kept = random_state()
    drawn = (torch.rand(3), np.random.rand(3), torch.randn(1))
    set_random_state(kept)
    again = (torch.rand(3), np.random.rand(3), torch.randn(1))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_means_of_checkpoints(tmp_path):
    _, made = run(options(tmp_path, average_last=2))
    files = training_checkpoints(tmp_path)
    states = [read_training_checkpoint(f).weights for f in files[-2:]]
    for name, parameter in made.named_parameters():
        assert torch.allclose(parameter, (states[0][name] + states[1][name]) / 2, atol=1e-7)
    assert mean_of_checkpoints(files[-1:]).keys() == states[1].keys()
    with pytest.raises(TrainingError, match="no checkpoint"):
        mean_of_checkpoints([])


def test_a_moving_average_follows_and_goes_away_again():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    average = ExponentialAverage(layer, 0.9)
    nn.init.constant_(layer.weight, 1.0)
    for step in range(1, 200):
        average.update(step)
    with average.applied():
        assert 0.99 < layer.weight.item() < 1.0
    assert layer.weight.item() == 1.0


def test_schedules():
    base = TrainingOptions(steps=100, warmup_steps=10, learning_rate=1.0)
    for kind in ("inverse-sqrt", "cosine", "linear", "constant"):
        chosen = replace(base, schedule=kind)
        rates = [learning_rate(chosen, step) for step in range(100)]
        assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
        assert max(rates) == pytest.approx(1.0)
        assert rates[9] == pytest.approx(1.0)
        assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert learning_rate(replace(base, schedule="linear"), 55) == pytest.approx(0.5)
    assert learning_rate(replace(base, schedule="cosine"), 55) == pytest.approx(0.5)
    assert learning_rate(base, 39) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"ema_decay": 1.0},
        {"learning_rate": 0.0},
        {"schedule": "sine"},
        {"ema_decay": 0.9, "average_last": 2},
    ],
)
def test_options_out_of_their_domain(wrong):
    with pytest.raises(OptionsError):
        TrainingOptions(**wrong)


@pytest.mark.parametrize("half", [False, True])
def test_published_files_round_trip(tmp_path, half):
    state = {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3)}
    (tmp_path / "cmvn.ark").write_bytes(b"x")
    tokens = ["<blank>", "a", " ", "▁b"]
    folder = publish(
        tmp_path / "m", {"idim": 80, "name": "x"}, state, files=[tmp_path / "cmvn.ark"], dictionary=tokens, half=half
    )
    found = read_checkpoint(folder)
    assert found.args == {"idim": 80, "name": "x"}
    assert found.state["a.weight"].dtype == (torch.float16 if half else torch.float32)
    assert torch.allclose(found.state["a.weight"].float(), state["a.weight"], atol=2e-3 if half else 0)
    assert torch.equal(found.state["a.bias"], state["a.bias"])
    assert read_dictionary(folder / "dict.txt") == tokens
    assert (folder / "cmvn.ark").read_bytes() == b"x"


def test_what_cannot_be_published(tmp_path):
    with pytest.raises(TrainingError, match="plain values"):
        publish(tmp_path, {"x": object()}, {})
    with pytest.raises(TrainingError, match="not finite"):
        publish(tmp_path, {}, {"w": torch.tensor([math.nan])})
    with pytest.raises(TrainingError, match="twice"):
        write_dictionary(tmp_path / "d", ["a", "a"])
    with pytest.raises(TrainingError, match="white space"):
        write_dictionary(tmp_path / "d", ["a b"])


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboard", reason="event files need the extra `training`")
    run(options(tmp_path, steps=4, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_bfloat16_trains_with_float32_weights(tmp_path):
    outcome, made = run(options(tmp_path, precision="bfloat16"))
    assert outcome.finished
    assert all(p.dtype == torch.float32 for p in made.parameters())
    assert not equal(made, run(options(tmp_path / "b"))[1])
