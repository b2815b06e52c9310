"""Engine processes: answers, batches across requests, deaths, cancellation, unloading, live sessions."""

import asyncio
import contextlib
import os
import signal

import numpy as np
import pytest
from server_helpers import tone, tones

from vermilion.errors import CheckpointError, OptionsError
from vermilion.live import Final, LiveOptions, Partial, SpeechEnded, SpeechStarted
from vermilion.server.backend import Task
from vermilion.server.engines import EnginePool
from vermilion.server.errors import Busy, RequestError
from vermilion.server.fair import FairQueue
from vermilion.server.rate import Rate
from vermilion.server.uploads import Spool
from vermilion.testing import FakeModels


def pcm(samples):
    return (np.asarray(samples) * 32767).round().astype("<i2").tobytes()


@contextlib.asynccontextmanager
async def engines(folder, models=None, **options):
    spool = Spool(folder / "spool", 1 << 30)
    spool.prepare()
    pool = EnginePool(models or FakeModels(), spool, **options)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def task(folder, samples, name="a.wav", **more):
    path = folder / f"{name}.0"
    path.write_bytes(pcm(samples))
    return Task([path], name, seconds=len(samples) / 16000, **more)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


def test_many_requests_at_once_get_their_own_answers(tmp_path):
    async def work():
        async with engines(tmp_path, workers=2) as pool:
            wanted = [300 + 10 * i for i in range(40)]
            found = await asyncio.gather(*(pool.transcribe(task(tmp_path, tone(h), f"{h}.wav")) for h in wanted))
            assert [t.text for t in found] == [f"Tone {h} hertz." for h in wanted]
            assert [t.source for t in found] == [f"{h}.wav" for h in wanted]
            assert pool.waiting_seconds == 0
            assert pool.models["asr"] == "fake-asr"

    run(work())


def test_steps_tell_segments_and_a_later_task_does_not_repeat_them(tmp_path):
    steps = []

    async def note(step):
        steps.append(step)

    async def work():
        async with engines(tmp_path, FakeModels(delay=0.01)) as pool:
            whole = task(tmp_path, tones(*range(300, 1500, 100)))
            first = await pool.transcribe(whole, note)
            states = [state for step in steps for state in step.segments]
            assert len(states) == len(first.segments) == 12
            assert steps[0].stage == "vad"
            assert steps[-1].done == steps[-1].total == pytest.approx(12)
            marked = [{**s, "sentences": [{**s["sentences"][0], "text": "kept"}]} for s in states[:5]]
            again = await pool.transcribe(Task(whole.tracks, "a.wav", seconds=12, finished=marked), note)
            assert [s.text for s in again.sentences][:6] == ["kept"] * 5 + ["Tone 800 hertz."]

    run(work())


def test_a_short_clip_overtakes_a_long_recording(tmp_path):
    async def work():
        options = FakeModels(delay=0.02)
        async with engines(tmp_path, options) as pool:
            long = asyncio.ensure_future(pool.transcribe(task(tmp_path, np.tile(tone(500), 300), "long.wav")))
            await asyncio.sleep(0.5)
            short = await pool.transcribe(task(tmp_path, tone(700), "short.wav", weight=4.0))
            assert short.text == "Tone 700 hertz."
            assert not long.done()
            long.cancel()

    run(work())


def test_a_cancelled_request_stops_working(tmp_path):
    async def work():
        async with engines(tmp_path, FakeModels(delay=0.1)) as pool:
            seen = []

            async def note(step):
                seen.append(step)

            job = asyncio.ensure_future(pool.transcribe(task(tmp_path, np.tile(tone(500), 100)), note))
            while len(seen) < 1:
                await asyncio.sleep(0.01)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            assert pool.waiting_seconds == 0
            other = await pool.transcribe(task(tmp_path, tone(700), "b.wav"))  # not behind the remaining 100 s
            assert other.text == "Tone 700 hertz."

    run(work())


def test_a_killed_engine_costs_nobody_an_answer(tmp_path):
    async def work():
        async with engines(tmp_path, FakeModels(delay=0.05)) as pool:
            jobs = [
                asyncio.ensure_future(pool.transcribe(task(tmp_path, np.tile(tone(h), 5), f"{h}.wav")))
                for h in range(300, 700, 50)
            ]
            await asyncio.sleep(0.3)
            os.kill(pool._slots[0].engine.process.pid, signal.SIGKILL)
            found = await asyncio.gather(*jobs)
            assert [t.text.split()[1] for t in found] == [str(h) for h in range(300, 700, 50)]
            assert 0 < pool.deaths <= len(jobs)

    run(work())


def test_what_kills_engines_is_found_and_the_others_are_answered(tmp_path):
    async def work():
        async with engines(tmp_path, FakeModels(delay=0.02)) as pool:
            poison = asyncio.ensure_future(pool.transcribe(task(tmp_path, tone(6666), "poison.wav")))
            good = [pool.transcribe(task(tmp_path, tone(h), f"{h}.wav")) for h in range(300, 600, 50)]
            found = await asyncio.gather(*good)
            assert [t.text.split()[1] for t in found] == [str(h) for h in range(300, 600, 50)]
            with pytest.raises(RequestError) as caught:
                await poison
            assert caught.value.code == "engine_failed"

    run(work())


def test_idle_engines_give_their_memory_back_and_come_again(tmp_path):
    async def work():
        async with engines(tmp_path, keep_alive=0.5) as pool:
            process = pool._slots[0].engine.process
            for _ in range(100):
                await asyncio.sleep(0.1)
                if not pool.loaded:
                    break
            assert not pool.loaded
            assert not process.is_alive()
            found = await pool.transcribe(task(tmp_path, tone(440)))
            assert found.text == "Tone 440 hertz."
            assert pool.loaded == 1

    run(work())


class Broken:
    def __call__(self):
        raise CheckpointError("no model here; run `vermilion pull`")


def test_models_that_cannot_be_loaded_end_the_start(tmp_path):
    async def work():
        with pytest.raises(CheckpointError, match="vermilion pull"):
            async with engines(tmp_path, Broken()):
                pass

    run(work())


def test_modules_alone(tmp_path):
    async def work():
        async with engines(tmp_path) as pool:
            one = task(tmp_path, np.concatenate([tone(440), np.zeros(16000), tone(550)]))
            found = await pool.call("segments", task=one)
            assert [(s.start, s.end) for s in found.segments] == [(0, 1), (2, 3)]
            languages = await pool.call("languages", task=one)
            assert [r.language for _, r in languages] == ["en", "en"]
            assert (await pool.call("events", task=one)).spans["music"][0].end == 0.5
            assert await pool.call("punctuate", texts=["hello", "you"]) == ["Hello.", "You."]
            with pytest.raises(OptionsError):
                await pool.call("nonsense", task=one)

    run(work())


def test_samples_of_any_rate(tmp_path):
    async def work():
        async with engines(tmp_path) as pool:
            samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24000) / 24000)
            found = await pool.transcribe_samples(pcm(samples), 24000)
            assert found.text == "Tone 440 hertz."
            assert list(pool.spool.folder.iterdir()) == []

    run(work())


async def talk(link, samples, chunk=3200):
    for start in range(0, len(samples), chunk):
        await link.send(pcm(samples[start : start + chunk]), 16000)
    await link.finish()
    return [event async for event in link.events()]


def test_live_sessions_beside_each_other(tmp_path):
    async def work():
        async with engines(tmp_path, live_sessions=4) as pool:
            links = [await pool.open_live(LiveOptions()) for _ in range(4)]
            with pytest.raises(Busy):
                await pool.open_live(LiveOptions())
            told = await asyncio.gather(
                *(
                    talk(link, np.concatenate([np.zeros(8000), tone(h, 1.5), np.zeros(16000), tone(h + 100, 1.0)]))
                    for link, h in zip(links, (300, 500, 700, 900), strict=True)
                )
            )
            for events, h in zip(told, (300, 500, 700, 900), strict=True):
                finals = [e.text for e in events if isinstance(e, Final)]
                assert [f.split()[1] for f in finals] == [str(h), str(h + 100)]
                kinds = [type(e) for e in events if not isinstance(e, Partial)]
                assert kinds.count(SpeechStarted) == kinds.count(SpeechEnded) == 2
            assert pool.live_open == 0

    run(work())


def test_live_sessions_end_with_their_engine(tmp_path):
    async def work():
        async with engines(tmp_path) as pool:
            link = await pool.open_live(LiveOptions())
            await link.send(pcm(tone(440)), 16000)
            os.kill(pool._slots[0].engine.process.pid, signal.SIGKILL)
            with pytest.raises(RequestError):
                _ = [event async for event in link.events()]
            await link.close()
            assert pool.live_open == 0
            again = await pool.open_live(LiveOptions())
            assert [e.text for e in await talk(again, tone(440)) if isinstance(e, Final)]

    run(work())


def test_a_closed_live_session_is_forgotten(tmp_path):
    async def work():
        async with engines(tmp_path, live_sessions=1) as pool:
            for _ in range(3):
                link = await pool.open_live(LiveOptions())
                await link.send(pcm(tone(440)), 16000)
                await link.close()
                await link.close()
                _ = [event async for event in link.events()]  # it ends
            assert pool.live_open == 0

    run(work())


def test_fair_queue_gives_each_its_share():
    queue = FairQueue()
    queue.add("long", [(f"l{i}", 10.0) for i in range(100)])
    first = queue.take(10.0)
    queue.add("short", [("s0", 5.0), ("s1", 5.0)], weight=4.0)
    order = [owner for _ in range(4) for owner, _ in queue.take(10.0)]
    assert first == [("long", "l0")]
    assert order.index("short") <= 1
    assert order.count("short") == 2
    assert [item for _, item in FairQueueOf([("a", 30.0)]).take(1.0)] == ["a"]  # at least one


def test_nobody_is_passed_for_ever():
    """Two long ones wait while short ones keep coming, two for every one that is taken."""
    queue = FairQueue()
    queue.add("old", [("o0", 6.0), ("o1", 6.0)], weight=4.0)
    queue.take(6.0)
    for i in range(100):
        queue.add(f"new {i}", [(i, 6.0)], weight=4.0)
        queue.add(f"more {i}", [(i, 6.0)], weight=4.0)
        if ("old", "o1") in queue.take(6.0):
            break
    assert i < 10


def FairQueueOf(items):
    queue = FairQueue()
    queue.add("x", items)
    return queue


def test_fair_queue_keeps_an_owners_order_and_forgets():
    queue = FairQueue()
    queue.add("a", [(i, 1.0) for i in range(10)])
    queue.add("b", [(i, 1.0) for i in range(10)], weight=2.0)
    taken = queue.take(12.0)
    for owner in "ab":
        items = [i for o, i in taken if o == owner]
        assert items == sorted(items)
    assert sum(o == "b" for o, _ in taken) > sum(o == "a" for o, _ in taken)
    queue.remove("a")
    assert {o for o, _ in queue.take(100)} == {"b"}
    assert len(queue) == 0


def test_rate_is_measured_only_while_there_is_work():
    now = [0.0]
    rate = Rate(lambda: now[0])
    with rate.busy():
        for _ in range(300):
            now[0] += 1
            rate.add(4.0)
    now[0] += 1000  # nobody asked for anything
    assert rate.value == pytest.approx(4.0, rel=0.15)
