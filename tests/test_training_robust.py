"""What goes wrong in trainings: bad recordings, changed data, errors, full disks, two at once."""

import errno
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate", reason="training needs the extra `training`")

from filelock import FileLock  # noqa: E402
from training_helpers import DATA, QUIET, TINY, corpus, options  # noqa: E402

from vermilion.checkpoints.reader import read_checkpoint  # noqa: E402
from vermilion.cli import main  # noqa: E402
from vermilion.cli.console import Terminal  # noqa: E402
from vermilion.cli.steps import Lines as MinuteLines  # noqa: E402
from vermilion.errors import AudioError, OptionsError, TrainingError  # noqa: E402
from vermilion.manifests import Utterance, read_manifest, write_manifest  # noqa: E402
from vermilion.training import checkpoints, stepping  # noqa: E402
from vermilion.training.aed import AedNetwork, train_aed  # noqa: E402
from vermilion.training.augment import AugmentOptions, SoundBank  # noqa: E402
from vermilion.training.checkpoints import FOLDER, training_checkpoints  # noqa: E402
from vermilion.training.locking import LOCK  # noqa: E402
from vermilion.training.log import TrainingProgress, read_metrics  # noqa: E402
from vermilion.training.options import DataOptions, TokenOptions, TrainingOptions  # noqa: E402
from vermilion.training.skipping import FILE, Skips  # noqa: E402

TINIEST = replace(TINY, width=16, encoder_layers=1, ctc_weight=0.0)


@pytest.fixture
def manifest(tmp_path) -> Path:
    return corpus(tmp_path / "corpus")


def short(manifest, folder, steps=6, *, remarks=None, data=DATA, **more):
    def report(progress: TrainingProgress) -> None:
        if remarks is not None and progress.what not in ("training", "saving", "validating"):
            remarks.append(progress.what)

    return train_aed(
        manifest, options=TINIEST, training=options(folder, steps, **more), data=data, tokens=TokenOptions(pieces=30),
        augment=QUIET, report=report,
    )  # fmt: skip


def published(folder: Path) -> dict:
    return read_checkpoint(folder / "model").state


def equal(one: Path, other: Path) -> bool:
    a, b = published(one), published(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def listed(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / FILE).read_text().splitlines()]


# ---- bad recordings


@pytest.mark.parametrize("processes", [0, 1])
def test_bad_recordings_are_skipped_counted_and_named(manifest, tmp_path, processes):
    lines = read_manifest(manifest)
    Path(lines[3].audio).unlink()
    Path(lines[8].audio).write_bytes(b"no sound")
    # the whole epoch, some batches twice
    outcome = short(manifest, tmp_path / "a", 8, data=replace(DATA, processes=processes))
    assert outcome.finished
    assert sorted(outcome.skipped) == sorted([lines[3].id, lines[8].id]) == sorted(listed(tmp_path / "a"))
    assert all(torch.isfinite(t).all() for t in published(tmp_path / "a").values())


def test_a_batch_of_bad_recordings_alone_is_replaced(manifest, tmp_path):
    lines = read_manifest(manifest)
    Path(lines[3].audio).unlink()
    alone = replace(DATA, max_items=1)
    assert short(manifest, tmp_path / "a", 24, data=alone).step == 24
    assert listed(tmp_path / "a") == [lines[3].id]


def test_a_broken_set_is_said_early(manifest, tmp_path):
    lines = read_manifest(manifest)
    for line in lines:
        Path(line.audio).unlink()
    with pytest.raises(TrainingError, match=r"of the first 24 recordings 24 cannot .*data clean.*--max-bad-share"):
        short(manifest, tmp_path / "a", 100)
    assert not training_checkpoints(tmp_path / "a")


def test_the_share_of_bad_ones_has_a_limit(manifest, tmp_path):
    for line in read_manifest(manifest)[::4]:
        Path(line.audio).unlink()
    with pytest.raises(TrainingError, match="cannot be used"):
        short(manifest, tmp_path / "a", 100)
    assert short(manifest, tmp_path / "b", 8, max_bad_share=0.5).finished
    with pytest.raises(OptionsError, match="max_bad_share"):
        TrainingOptions(max_bad_share=2)


def test_lines_that_are_no_entries_are_left_out_and_named(manifest, tmp_path):
    rows = manifest.read_text().splitlines()
    rows[2] = '{"audio_filepath": "x.wav", "offset": -2}'
    rows[5] = "{"
    manifest.write_text("\n".join(rows) + "\n")
    remarks: list[str] = []
    outcome = short(manifest, tmp_path / "a", 2, remarks=remarks)
    assert outcome.skipped == ("line 3", "line 6")
    assert "22 utterances" in remarks[0]
    assert "left out: 2 line is no entry" in remarks[0]
    rows[6:12] = ["{"] * 6
    manifest.write_text("\n".join(rows) + "\n")
    with pytest.raises(TrainingError, match="of the first 24 recordings 8 "):
        short(manifest, tmp_path / "b", 2)


def test_the_summary_counts_what_is_left_out(manifest, tmp_path):
    lines = read_manifest(manifest)
    lines[0] = replace(lines[0], duration=40.0)
    lines[1] = replace(lines[1], text=None)
    lines[2] = replace(lines[2], text="…")
    lines[3] = replace(lines[3], duration=0.01)
    write_manifest(manifest, lines)
    remarks: list[str] = []
    short(manifest, tmp_path / "a", 1, remarks=remarks)
    assert remarks[0].startswith("data: 20 utterances, 0.00 h; left out: ")
    for part in ("1 longer than 30 s", "1 without a text", "1 without a token", "1 shorter than 0.1 s"):
        assert part in remarks[0]


def test_characters_that_a_vocabulary_lacks_are_told(manifest, tmp_path):
    short(manifest, tmp_path / "a", 1)
    lines = read_manifest(manifest)
    write_manifest(manifest, [replace(lines[0], text="一龘龘"), *lines[1:]])
    remarks: list[str] = []
    tuned = replace(TINIEST, init=tmp_path / "a" / "model")
    train_aed(
        manifest, options=tuned, training=options(tmp_path / "b", 1), data=DATA,
        report=lambda progress: remarks.append(progress.what),
    )  # fmt: skip
    assert "not in the vocabulary, trained on as <unk>: 龘 (2)" in remarks


def test_a_bad_noise_is_replaced_by_another(manifest, tmp_path):
    lines = read_manifest(manifest)
    bad = replace(lines[0], id="bad", audio=str(tmp_path / "none.wav"))
    bank = SoundBank([bad, lines[1]])
    import numpy as np

    rng = np.random.default_rng(0)
    assert all(len(bank.draw(rng)) for _ in range(8))
    assert [fault[0] for fault in bank.faults()] == ["bad"]
    assert bank.faults() == []
    with pytest.raises(AudioError, match="none of the 1"):
        SoundBank([bad]).draw(rng)
    write_manifest(tmp_path / "noises.jsonl", [bad, lines[1]])
    noisy = replace(AugmentOptions.none(), noise=1.0, noises=tmp_path / "noises.jsonl")
    outcome = train_aed(
        manifest, options=TINIEST, training=options(tmp_path / "a", 6), data=DATA, tokens=TokenOptions(pieces=30),
        augment=noisy,
    )  # fmt: skip
    assert outcome.skipped == ("bad",)


def test_a_list_of_skips_is_one_for_all_parts(tmp_path):
    line = Utterance("u", "u.wav")
    Skips(tmp_path).note("u", "gone", "u.wav")
    again = Skips(tmp_path)
    again.add(line, "gone")
    assert again.listed() == ["u"]
    assert len(listed(tmp_path)) == 1
    again.forget()
    assert again.listed() == []
    lost = Skips(tmp_path / "nowhere")
    lost.note("u", "gone")
    assert lost.listed() == []


# ---- going on


def test_a_line_taken_out_of_the_manifest_does_not_end_a_training(manifest, tmp_path):
    short(manifest, tmp_path / "a", 4)
    lines = read_manifest(manifest)
    write_manifest(manifest, lines[:7] + lines[8:])
    remarks: list[str] = []
    assert short(manifest, tmp_path / "a", 9, remarks=remarks).finished
    told = next(r for r in remarks if "data are not those of the checkpoint" in r)
    assert "23 utterances instead of 24" in told
    write_manifest(manifest, [replace(lines[0], text="三三"), *lines[1:7], *lines[8:]])
    short(manifest, tmp_path / "a", 10, remarks=remarks)
    assert "23 utterances," in remarks[-1] + remarks[-2] + remarks[-3]
    remarks.clear()
    short(manifest, tmp_path / "a", 11, remarks=remarks)
    assert not any("not those" in r for r in remarks)


def test_a_deleted_recording_does_not_end_a_training(manifest, tmp_path):
    short(manifest, tmp_path / "a", 3)
    lines = read_manifest(manifest)
    Path(lines[5].audio).unlink()
    assert short(manifest, tmp_path / "a", 12).skipped == (lines[5].id,)


def test_an_error_saves_what_was_learnt_to_the_bit(manifest, tmp_path, monkeypatch):
    short(manifest, tmp_path / "whole", 8)
    forward, calls = AedNetwork.forward, [0]

    def failing(self, *arguments):
        calls[0] += 1
        if calls[0] == 6:
            torch.randn(3)  # what the broken step drew is forgotten
            raise RuntimeError("out of memory, say")
        return forward(self, *arguments)

    remarks: list[str] = []
    monkeypatch.setattr(AedNetwork, "forward", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        short(manifest, tmp_path / "parts", 8, remarks=remarks)
    assert [p.name for p in training_checkpoints(tmp_path / "parts")] == ["step-00000005.pt"]
    assert "saved as it was before the error" in remarks[-1]
    monkeypatch.setattr(AedNetwork, "forward", forward)
    short(manifest, tmp_path / "parts", 8)
    assert equal(tmp_path / "whole", tmp_path / "parts")


def test_a_loss_that_is_no_number_at_the_first_step_claims_no_checkpoint(manifest, tmp_path, monkeypatch):
    forward = AedNetwork.forward
    monkeypatch.setattr(AedNetwork, "forward", lambda self, *a: {"loss": forward(self, *a)["loss"] * math.nan})
    with pytest.raises(TrainingError, match=r"at step 1 .*nothing is saved yet.*--learning-rate 0\.0003"):
        short(manifest, tmp_path / "a")
    assert not (tmp_path / "a" / FOLDER).exists()


def test_the_advice_about_a_loss_that_is_no_number_can_be_followed(manifest, tmp_path, monkeypatch):
    forward, calls = AedNetwork.forward, [0]

    def failing(self, *arguments):
        calls[0] += 1
        found = forward(self, *arguments)
        return {**found, "loss": found["loss"] * (math.nan if calls[0] == 4 else 1)}

    monkeypatch.setattr(AedNetwork, "forward", failing)
    with pytest.raises(TrainingError, match=r"at step 4 .*--retune and --learning-rate 0\.0003 .*step-00000003\.pt"):
        short(manifest, tmp_path / "a")
    with pytest.raises(TrainingError, match=r"learning_rate was 0\.003 and is 0\.0003.*--retune allows that"):
        short(manifest, tmp_path / "a", learning_rate=3e-4)
    remarks: list[str] = []
    changed = {"learning_rate": 3e-4, "clip_norm": 1.0, "warmup_steps": 9, "weight_decay": 0.1}
    assert short(manifest, tmp_path / "a", remarks=remarks, retune=True, **changed).finished
    assert any("learning_rate was 0.003 and is 0.0003" in r for r in remarks)
    saved = checkpoints.read_training_checkpoint(training_checkpoints(tmp_path / "a")[-1])
    assert {group["weight_decay"] for group in saved.optimizer["param_groups"]} == {0.1, 0.0}
    with pytest.raises(TrainingError, match="seed was 0 and is 1"):
        short(manifest, tmp_path / "a", retune=True, seed=1)


def test_the_log_of_a_resumed_training_is_that_of_one_in_one(manifest, tmp_path):
    short(manifest, tmp_path / "whole", 10)
    for steps in (3, 7, 10):
        short(manifest, tmp_path / "parts", steps)

    rows = [list(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("whole", "parts")]
    for one, other in zip(*rows, strict=True):
        same = {k: v for k, v in one.items() if k not in ("steps_per_second", "hours")}
        assert same == {k: v for k, v in other.items() if k not in ("steps_per_second", "hours")}


# ---- folders and disks


def test_two_trainings_never_share_a_folder(manifest, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    with FileLock(folder / LOCK), pytest.raises(TrainingError, match="another process trains in"):
        short(manifest, folder)
    assert short(manifest, folder, 1).finished
    assert short(manifest, folder, 2).finished
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot use the folder"):
        short(manifest, tmp_path / "file" / "a")


def test_a_full_disk_is_said_and_leaves_nothing_behind(manifest, tmp_path, monkeypatch):
    short(manifest, tmp_path / "a", 1)

    def full(self, data):
        self.error = OSError(errno.ENOSPC, "No space left on device")
        raise self.error

    monkeypatch.setattr(checkpoints._Noting, "write", full)
    with pytest.raises(TrainingError, match=r"no space left on the disk \(.* MB free\)"):
        short(manifest, tmp_path / "a", 3)
    assert [p.name for p in (tmp_path / "a" / FOLDER).iterdir()] == ["step-00000001.pt"]


def test_a_picture_that_cannot_be_written_does_not_cost_the_model(manifest, tmp_path, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stepping, "draw_curve", full)
    remarks: list[str] = []
    assert short(manifest, tmp_path / "a", 1, remarks=remarks).finished
    assert "loss.png could not be written: no space left" in remarks[-1]
    assert published(tmp_path / "a")


# ---- what is said without a terminal


def test_a_line_a_minute(capsys):
    now = [0.0]
    lines = MinuteLines(Terminal(), lambda: now[0])
    for step in range(1, 200):
        now[0] += 1.0
        lines(TrainingProgress(step, 1000, 2.5, 0.5, "training"))
    err = capsys.readouterr().err.splitlines()
    assert [line.split(" ·")[0] for line in err] == [f"step {n} of 1,000" for n in (60, 120, 180)]
    assert "loss 2.500" in err[0]
    assert "0.5 steps/s" in err[0]


def test_the_command_names_what_was_left_out(manifest, tmp_path, capsys):
    lines = read_manifest(manifest)
    Path(lines[3].audio).unlink()
    sizes = ["--width", "16", "--heads", "2", "--encoder-layers", "1", "--decoder-layers", "1", "--pieces", "30"]
    common = ["--device", "cpu", "--threads", "1", "--steps", "6", "--output-dir", str(tmp_path / "a")]
    assert main(["train", "aed", str(manifest), *sizes, *common, "--max-items", "4"]) == 0
    err = capsys.readouterr().err
    assert f"warning: 1 left out: {lines[3].id}; {tmp_path / 'a' / FILE} says why" in err
    assert "finished after 6 steps" in err
    assert main(["train", "aed", str(manifest), *sizes, *common, "--max-items", "4", "--learning-rate", "1"]) == 1
    assert "--retune allows that" in capsys.readouterr().err


def test_data_options_out_of_their_domain():
    for wrong in ({"buffer": 0}, {"max_items": 0}, {"workers": -1}, {"min_seconds": 5, "max_seconds": 2}):
        with pytest.raises(OptionsError):
            DataOptions(**wrong)
