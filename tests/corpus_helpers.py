"""Pipelines of corpus tests: they are built inside worker processes, so everything here can be pickled."""

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from vermilion.audio.isolation import DecoderDied
from vermilion.cluster import reading, workers
from vermilion.errors import ModelError
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.testing import FakeDetector, FakeIdentifier, FakeRecognizer, FakeRestorer


@dataclass(frozen=True)
class Calm:
    """Says how long each recording is."""

    delay: float = 0.0

    def __call__(self):
        def answer(samples):
            time.sleep(self.delay)
            return f"heard {len(samples)} samples"

        return Pipeline(FakeDetector(), FakeIdentifier(), FakeRecognizer(answer), FakeRestorer(), PipelineOptions())


@dataclass(frozen=True)
class Touchy:
    """Dies, hangs or fills its memory at recordings of certain lengths (whole seconds)."""

    dies: int = 3
    hangs: int = 4
    once: str = ""
    """folder: dies only the first time"""

    def __call__(self):
        def answer(samples):
            seconds = len(samples) // 16000
            if seconds == self.dies and self._again():
                os.kill(os.getpid(), signal.SIGSEGV)
            if seconds == self.hangs:
                time.sleep(600)
            return f"heard {seconds} seconds"

        return Pipeline(None, None, FakeRecognizer(answer), None, PipelineOptions())

    def _again(self):
        if not self.once:
            return True
        mark = Path(self.once) / "died"
        if mark.exists():
            return False
        mark.touch()
        return True


@dataclass(frozen=True)
class Noting:
    """As `Calm`, but writes down who does what, and holds recordings that are longer until it may go on."""

    folder: str
    longest: int
    """samples"""

    def __call__(self):
        def answer(samples):
            with (Path(self.folder) / f"{os.getpid()}.notes").open("a") as notes:
                # the process that Ray knows, and the node that it belongs to
                notes.write(f"{os.environ['RAY_RAYLET_PID']} {os.getppid()} {len(samples)}\n")
            while len(samples) > self.longest and not (Path(self.folder) / "go").exists():
                time.sleep(0.05)
            return f"heard {len(samples)} samples"

        return Pipeline(FakeDetector(), FakeIdentifier(), FakeRecognizer(answer), FakeRestorer(), PipelineOptions())


@dataclass(frozen=True)
class Fussy:
    """Fails at segments of certain lengths (whole seconds), and keeps channels apart or not."""

    channels: str = "mix"
    fails: int = 2

    def __call__(self):
        def answer(samples):
            if len(samples) // 16000 == self.fails:
                raise ModelError("cannot bear this segment")
            return f"heard {len(samples)} samples, {np.abs(samples).max():.4f} loud"

        return Pipeline(
            None, FakeIdentifier(), FakeRecognizer(answer), FakeRestorer(), PipelineOptions(channels=self.channels)
        )


@dataclass(frozen=True)
class Undecodable:
    """Its decoders die so often at the recordings of these names."""

    deaths: dict[str, int]

    def __call__(self):
        left, real = dict(self.deaths), reading.decode

        def decode(work):
            name = Path(work.name).stem
            if left.get(name):
                left[name] -= 1
                raise DecoderDied(f"cannot read {work.name}")
            return real(work)

        reading.decode = decode  # this is a worker process: nobody else has this module
        return Calm()()


@dataclass(frozen=True)
class Faulty:
    """Cannot recognise recordings of a second or more."""

    def __call__(self):
        def answer(samples):
            if len(samples) >= 16000:
                raise ModelError("no answer for this segment")
            return "heard"

        return Pipeline(FakeDetector(), FakeIdentifier(), FakeRecognizer(answer), FakeRestorer(), PipelineOptions())


@dataclass(frozen=True)
class Unable:
    """Has no models."""

    def __call__(self):
        from vermilion.errors import CheckpointError

        raise CheckpointError("no model here; run `vermilion pull`")


@dataclass(frozen=True)
class Greedy:
    """Takes 100 GB of addresses at recordings of two seconds, or at once."""

    always: bool = False

    def __call__(self):
        def answer(samples):
            seconds = len(samples) // 16000
            if seconds == 2 or self.always:
                np.empty(100 << 30, np.uint8)
            return f"heard {seconds} seconds"

        if self.always:
            answer(np.zeros(0))
        return Pipeline(None, None, FakeRecognizer(answer), FakeRestorer(), PipelineOptions())


@dataclass(frozen=True)
class Unloadable:
    """Has models once."""

    mark: str

    def __call__(self):
        try:
            Path(self.mark).touch(exist_ok=False)
        except FileExistsError:
            return Unable()()
        return Calm()()


def make_corpus(folder, count, seconds=0.5, rate=16000):
    """Short recordings, all of different length, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        samples = np.full(int(seconds * rate) + i, 0.1, np.float32)
        soundfile.write(folder / f"clip{i:05d}.wav", samples, rate)
        rows.append({"audio_filepath": f"clip{i:05d}.wav", "id": f"item-{i:05d}", "speaker": f"s{i % 7}"})
    write_rows(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Messy:
    """Leaves a file in the worker's folder, is sent SIGTERM, and dies once at the recording called `dies`."""

    marks: str
    dies: str = ""

    def __call__(self):
        real, marks = workers.decoded, Path(self.marks)

        def decoded(item, options, folder, *more):
            (folder / "item-1.0").write_bytes(b"samples")
            if item.id == self.dies and not (marks / "died").exists():
                (marks / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGTERM)
            return real(item, options, folder, *more)

        workers.decoded = decoded
        return Calm()()


@dataclass(frozen=True)
class Slow:
    """The first process loads and dies at its work; the second dies while it loads."""

    marks: str

    def __call__(self):
        for mark in ("first", "second", "third"):
            try:
                (Path(self.marks) / mark).touch(exist_ok=False)
            except FileExistsError:
                continue
            if mark == "second":
                os.kill(os.getpid(), signal.SIGKILL)
            return Touchy(dies=0 if mark == "first" else 99)()
        return Calm()()
