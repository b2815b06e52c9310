"""Plan a corpus: measure a machine with a sample, predict wall time and cost of a million hours, check against runs.

  python benchmarks/scale/run.py sample corpus.jsonl --share 0.02 --out sample.jsonl --rest rest.jsonl
  python benchmarks/scale/run.py measure sample.jsonl --models starter --workers 1,2 --out figures.json
  python benchmarks/scale/run.py predict --figures figures.json --hours 1000000 --nodes 50,100 --workers 32 \\
      --price 1.20 --node-failures 0.002 --boot 120 --per-minute 10
  python benchmarks/scale/run.py check rest.jsonl --figures figures.json --workers 1,2 --kill --out checks.jsonl

`bench` turns the output of `vermilion bench --json` into figures; `assume` makes those of a GPU node out of them and a
speed that is said. docs/scale.md shows all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from figures import Figures, Stage, fitting, read, write
from simulation import HOUR, Cluster, Prediction, Workload, chunks_from, predict, simulate

ON_GPU = {"language", "recognition", "punctuation", "events"}
BENCH = {
    "audio decoding": "decoding",
    "vad": "voice activity",
    "events": "events",
    "lid": "language",
    "punctuation": "punctuation",
}
RECOGNITION = ("asr encoder", "asr decoder", "ctc")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand."""
    asked = parser().parse_args(arguments)
    try:
        return int(asked.run(asked))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


# ---- sample, measure, bench, assume


def sample(asked: argparse.Namespace) -> int:
    """Draw recordings out of manifests, of all lengths in their proportions; what is left can be the check."""
    from vermilion.manifests import read_manifest, write_manifest

    rng = random.Random(asked.seed)
    items = [item for name in asked.manifests for item in read_manifest(name)]
    items.sort(key=lambda item: item.duration or 0.0)
    count = min(len(items), max(1, round(asked.share * len(items))))
    drawn = {
        int((number + rng.random()) * len(items) / count) for number in range(count)
    }  # one of each step of lengths
    chosen, left = ([item for i, item in enumerate(items) if (i in drawn) == is_in] for is_in in (True, False))
    for some in (chosen, left):
        rng.shuffle(some)
    write_manifest(asked.out, chosen)
    if asked.rest:
        write_manifest(asked.rest, left[: asked.most or None])
    print(f"{len(chosen)} of {len(items)} recordings: {asked.out}")
    return 0


def measure(asked: argparse.Namespace) -> int:
    """Measure this machine, and add to a file of figures."""
    from measuring import Setting
    from measuring import measure as measured

    found = []
    for workers in asked.workers:
        setting = Setting(asked.models, workers, asked.chunk, asked.precision, asked.device)
        with others() as beside:
            said = measured(
                asked.manifest, setting, asked.engine, asked.starts, lambda what: print(f"… {what}", file=sys.stderr)
            )
        found.append(replace(said, note=f"{said.note}; others used {100 * beside[0]:.0f} % of the machine"))
        write(asked.out, found)
        print(table(found[-1]))
    return 0


def bench(asked: argparse.Namespace) -> int:
    """Turn the report of `vermilion bench --json` into figures of one worker with all cores."""
    report = json.loads(asked.report.read_text(encoding="utf-8"))
    speeds = {stage["stage"]: stage["seconds"] / stage["audio_s"] for stage in report["stages"]}
    share = asked.speech if asked.speech is not None else report["speech_s"] / report["recording_s"]
    stages = [Stage(name, speeds[known]) for known, name in BENCH.items() if known in speeds]
    recognition = sum(speeds[name] for name in RECOGNITION if name in speeds)
    stages.append(Stage("recognition", recognition))
    speech = {"language", "recognition", "punctuation"}  # these see speech only
    stages = [replace(s, second=s.second * share) if s.name in speech else s for s in stages]
    machine = report["machine"]
    name = f"{asked.name}, {report['precision']}, {machine['cores']} cores ({', '.join(machine['flags'])})"
    costs = read(asked.like)[0] if asked.like else None
    found = Figures(
        name, True, 1, machine["threads"], machine["cores"], tuple(stages), start=asked.load, load=asked.load,
        row=costs.row if costs else 0.0,
        row_bytes=costs.row_bytes if costs else (0.0, 0.0),
        parquet_bytes=costs.parquet_bytes if costs else (0.0, 0.0),
        note="stages one by one, from `vermilion bench --json`; rows as in " + (costs.name if costs else "nothing"),
    )  # fmt: skip
    write(asked.out, [found])
    print(table(found))
    return 0


def assume(asked: argparse.Namespace) -> int:
    """Figures of a node with a GPU: networks at a speed that is said, the rest as it was measured on a core."""
    base = read(asked.figures)[0]
    stages = []
    for stage in base.stages:
        if stage.name in ON_GPU:
            speed = asked.recognition if stage.name == "recognition" else asked.others
            stages.append(Stage(stage.name, 1 / speed, on="gpu"))
        else:  # the measured time is that of all threads
            stages.append(replace(stage, second=stage.second * base.threads, item=stage.item * base.threads))
    note = (
        f"ASSUMED, not measured: recognition {asked.recognition:g}, language, events and punctuation {asked.others:g} "
        f"seconds of audio per second on a GPU; processor stages as measured: {base.name}, one thread each"
    )
    found = replace(
        base, name=asked.name, measured=False, workers=1, threads=1, cores=1, stages=tuple(stages), note=note
    )
    write(asked.out, [found])
    print(table(found))
    return 0


def table(found: Figures) -> str:
    """Figures for people."""
    core = found.workers / found.cores
    lines = [found.name if found.measured else f"{found.name} (assumed)"]
    lines += [f"{found.workers} workers with {found.threads} threads on {found.cores} cores; {found.note}"]
    lines += [f"{'stage':<16}{'ms per audio s':>16}{'ms per recording':>18}{'audio h per core h':>20}"]
    for stage in found.stages:
        whole = stage.second + (stage.item / found.mean_seconds if found.mean_seconds else 0.0)
        speed = core / whole if whole else 0.0
        place = "  (GPU)" if stage.on == "gpu" else ""
        lines += [f"{stage.name:<16}{1000 * stage.second:>16.2f}{1000 * stage.item:>18.1f}{speed:>20,.1f}{place}"]
    lines += [f"{'all':<16}{1000 * found.second:>16.2f}{1000 * found.item:>18.1f}{found.per_core_hour():>20,.2f}"]
    lines += [
        f"a worker alone needs {found.alone:.2f} of the time; start {found.start:.1f} s, models {found.load:.1f} s, "
        f"a row {1000 * found.row:.2f} ms"
    ]
    return "\n".join(lines) + "\n"


# ---- predict


def plan(asked: argparse.Namespace) -> int:
    """Predict a job on one or more clusters."""
    workload = Workload(asked.hours, asked.mean_seconds, asked.spread, asked.kbits * 125, asked.poison)
    found = []
    for nodes in asked.nodes:
        for workers in asked.workers:
            figures = fitting(read(asked.figures), workers)
            cluster = Cluster(
                nodes, workers, asked.gpus, asked.engine, asked.chunk, asked.round, asked.boot, asked.per_minute,
                asked.idle, asked.speed, asked.stragglers, asked.node_failures, asked.worker_crashes,
                asked.link * 1.25e8, asked.storage * 1.25e8, asked.price, asked.driver_price,
            )  # fmt: skip
            found.append((figures, predict(workload, figures, cluster, asked.runs, asked.seed)))
            if not asked.json:
                print(described(*found[-1]))
    if asked.json:
        print(json.dumps([summary(*pair) for pair in found], indent=1))
    return 0


def summary(figures: Figures, found: Prediction) -> dict[str, Any]:
    """A prediction as plain values."""
    load, cluster = found.workload, found.cluster
    wall, node_hours = found.middle("wall"), found.middle("node_seconds") / HOUR
    seconds, read_bytes = load.hours * HOUR, load.hours * HOUR * load.bytes_per_second
    sizes = (figures.row_bytes, figures.parquet_bytes)
    rows = [per_item * load.recordings + per_second * seconds for per_item, per_second in sizes]
    return {
        "figures": figures.name,
        "measured": figures.measured,
        "workload": asdict(load) | {"recordings": load.recordings},
        "cluster": {k: (None if v == float("inf") else v) for k, v in asdict(cluster).items()},
        "wall_hours": wall / HOUR,
        "wall_hours_range": [value / HOUR for value in found.range("wall")],
        "node_hours": node_hours,
        "cost": found.middle("cost"),
        "cost_range": list(found.range("cost")),
        "audio_hours_per_node_hour": load.hours / node_hours if node_hours else None,
        "busy": found.middle("busy"),
        "lost_work_share": found.middle("lost") / (seconds * figures.second + load.recordings * figures.item),
        "node_failures": found.middle("node_failures"),
        "worker_crashes": found.middle("worker_crashes"),
        "failed_recordings": found.middle("failed"),
        "driver_busy": found.middle("driver"),
        "read_terabytes": read_bytes / 1e12,
        "read_gigabits_per_second": 8 * read_bytes / wall / 1e9,
        "rows_jsonl_gigabytes": rows[0] / 1e9,
        "rows_parquet_gigabytes": rows[1] / 1e9,
    }


def described(figures: Figures, found: Prediction) -> str:
    """A prediction for people."""
    said = summary(figures, found)
    low, high = said["wall_hours_range"]
    cluster = found.cluster
    gpus = f", {cluster.gpus} GPUs" if cluster.gpus else ""
    lines = [
        f"{found.workload.hours:,.0f} h of audio in {found.workload.recordings:,} recordings on {cluster.nodes} nodes "
        f"with {cluster.workers} workers{gpus}: {figures.name}{'' if figures.measured else ' (assumed)'}",
        f"  wall time   {_span(said['wall_hours'])}   ({_span(low)} to {_span(high)}, {len(found.runs)} runs)",
        f"  machines    {said['node_hours']:,.0f} node hours, {said['audio_hours_per_node_hour']:,.2f} audio hours per "
        f"node hour, {100 * said['busy']:.1f} % of the workers' time at work",
    ]
    if said["cost"]:
        each = said["cost"] / found.workload.hours
        lines += [f"  cost        {said['cost']:,.0f}   ({each:.4f} per audio hour)"]
    lines += [
        f"  failures    {said['node_failures']:,.0f} nodes, {said['worker_crashes']:,.0f} workers, "
        f"{said['failed_recordings']:,.0f} recordings; {100 * said['lost_work_share']:.2f} % of the work done twice",
        f"  driver      {100 * said['driver_busy']:.1f} % of its time writing rows",
        f"  reading     {said['read_terabytes']:,.1f} TB, {said['read_gigabits_per_second']:.2f} Gbit/s on average",
        f"  rows        {said['rows_jsonl_gigabytes']:,.0f} GB as JSON lines, "
        f"{said['rows_parquet_gigabytes']:,.0f} GB as Parquet",
    ]
    return "\n".join(lines) + "\n"


def _span(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


# ---- check


def check(asked: argparse.Namespace) -> int:
    """Predict runs, then make them, and say how far off the predictions were."""
    from measuring import Setting

    known, errors = read(asked.figures), []
    durations = lengths(asked.manifest)
    for turn in range(asked.rounds):
        for workers in asked.workers:
            figures = fitting(known, workers)
            for kill in (False, True) if asked.kill and workers > 1 else (False,):
                setting = Setting(asked.models, workers, asked.chunk, asked.precision, asked.device)
                cluster = Cluster(workers=workers, engine=asked.engine, chunk=asked.chunk)
                calm = simulate(chunks_from(durations, asked.chunk), figures, cluster).wall
                at = figures.start + (calm - figures.start) / 2 if kill else None
                kills = () if at is None else (at,)
                foreseen = simulate(chunks_from(durations, asked.chunk), figures, cluster, kills=kills).wall
                with others() as beside:
                    real = run_once(asked.manifest, setting, asked.engine, at)
                line = {
                    "round": turn, "engine": asked.engine, "models": asked.models, "workers": workers,
                    "killed_at": at, "recordings": len(durations), "audio": sum(durations),
                    "predicted": foreseen, "measured": real, "error": foreseen / real - 1,
                    "others": beside[0],
                }  # fmt: skip
                errors.append(abs(line["error"]))
                if asked.out:
                    with asked.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                killed = f", one killed at {at:.0f} s" if at else ""
                print(
                    f"{asked.engine}, {workers} workers{killed}: predicted {foreseen:.1f} s, measured {real:.1f} s, "
                    f"off by {100 * line['error']:+.1f} %; others used {100 * beside[0]:.0f} % of the machine",
                    flush=True,
                )
    print(f"median error {100 * statistics.median(errors):.1f} %, largest {100 * max(errors):.1f} %")
    return 0


def lengths(manifest: Path) -> list[float]:
    """Seconds of every recording of a manifest.

    Raises:
        ValueError: a line does not say it.
    """
    from vermilion.manifests import read_manifest

    items = read_manifest(manifest)
    unknown = [item.id for item in items if item.duration is None]
    if unknown:
        raise ValueError(f"{manifest}: {len(unknown)} lines without a duration, such as {unknown[0]}")
    return [item.duration or 0.0 for item in items]


def run_once(manifest: Path, setting: Any, engine: str, kill_at: float | None = None) -> float:
    """Seconds that the real command takes; a worker is killed at some moment where one is said.

    Raises:
        ValueError: the command failed, or nobody could be killed.
    """
    with tempfile.TemporaryDirectory(prefix="vermilion-scale-") as folder:
        command = setting.command(manifest.resolve(), Path(folder) / "out", "--engine", engine)
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if kill_at is not None:
            time.sleep(max(0.0, kill_at - (time.perf_counter() - began)))
            workers = busiest(process.pid)
            if not workers:
                process.kill()
                raise ValueError("there was no worker to kill any more; the job was over")
            os.kill(workers[0], signal.SIGKILL)
        code = process.wait()
        spent = time.perf_counter() - began
        if code:
            raise ValueError(f"the command ended with {code}: {' '.join(command)}")
    return spent


def busiest(parent: int) -> list[int]:
    """Worker processes of a job, the one that has worked most first (Linux)."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            said = (place / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if int(said[1]) == parent and b"spawn_main" in command:
            found.append((int(said[11]), int(place.name)))
    return [number for _, number in sorted(found, reverse=True)]


@contextmanager
def others() -> Iterator[list[float]]:
    """Share of the machine that other programs used meanwhile: a figure beside them says little (Linux)."""
    share = [0.0]
    before = _ticks()
    yield share
    busy, all_of_it, ours = (after - earlier for after, earlier in zip(_ticks(), before, strict=True))
    share[0] = max(0.0, busy - ours) / all_of_it if all_of_it else 0.0


def _ticks() -> tuple[float, float, float]:
    """Seconds of all processors: at work, in total; and of this program and its children that have ended."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    except OSError:
        return 0.0, 0.0, 0.0
    spent = [
        int(value) / os.sysconf("SC_CLK_TCK") for value in line[1:9]
    ]  # user nice system idle iowait irq soft steal
    return sum(spent) - spent[3] - spent[4], sum(spent), sum(os.times()[:4])


# ---- the command line


def numbers(text: str) -> list[int]:
    """A list of whole numbers such as 1,2,4."""
    return [int(part) for part in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = found.add_subparsers(required=True)
    _sample(commands.add_parser("sample", help=str(sample.__doc__)))
    _measure(commands.add_parser("measure", help=str(measure.__doc__)))
    _bench(commands.add_parser("bench", help=str(bench.__doc__)))
    _assume(commands.add_parser("assume", help=str(assume.__doc__)))
    _predict(commands.add_parser("predict", help=str(plan.__doc__)))
    _check(commands.add_parser("check", help=str(check.__doc__)))
    return found


def _sample(one: argparse.ArgumentParser) -> None:
    one.set_defaults(run=sample)
    one.add_argument("manifests", nargs="+", type=Path)
    one.add_argument("--share", type=float, default=0.01, help="of the recordings")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--rest", type=Path, help="where the other recordings go, in random order")
    one.add_argument("--most", type=int, default=0, help="at most so many of them")


def _job(one: argparse.ArgumentParser) -> None:
    one.add_argument("--models", default="starter")
    one.add_argument("--workers", type=numbers, default=[1], help="such as 1,2")
    one.add_argument("--chunk", type=int, default=16)
    one.add_argument("--precision", default="float32")
    one.add_argument("--device", default="cpu")
    one.add_argument("--engine", choices=("local", "ray"), default="local")


def _measure(one: argparse.ArgumentParser) -> None:
    one.set_defaults(run=measure)
    one.add_argument("manifest", type=Path)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--starts", type=int, default=3, help="how often the start is timed")
    _job(one)


def _bench(one: argparse.ArgumentParser) -> None:
    one.set_defaults(run=bench)
    one.add_argument("report", type=Path)
    one.add_argument("--name", required=True, help="of the models")
    one.add_argument(
        "--speech", type=float, help="share of the recordings that is speech, where it is not that of the report"
    )
    one.add_argument("--load", type=float, default=30.0, help="seconds until the models are there")
    one.add_argument("--like", type=Path, help="figures whose rows are taken over")
    one.add_argument("--out", type=Path, required=True)


def _assume(one: argparse.ArgumentParser) -> None:
    one.set_defaults(run=assume)
    one.add_argument("figures", type=Path, help="measured on a processor")
    one.add_argument("--name", required=True)
    one.add_argument("--recognition", type=float, default=2000.0, help="seconds of audio per second of a GPU")
    one.add_argument("--others", type=float, default=4000.0, help="of each other network, likewise")
    one.add_argument("--out", type=Path, required=True)


def _predict(one: argparse.ArgumentParser) -> None:
    one.set_defaults(run=plan)
    one.add_argument("--figures", type=Path, required=True)
    one.add_argument("--hours", type=float, default=1e6, help="of audio")
    one.add_argument("--mean-seconds", type=float, default=360.0, help="of a recording")
    one.add_argument("--spread", type=float, default=1.0, help="standard deviation of the logarithm of its length")
    one.add_argument("--kbits", type=float, default=32.0, help="per second of stored audio")
    one.add_argument("--poison", type=float, default=0.0, help="share of recordings that end their workers")
    one.add_argument("--nodes", type=numbers, default=[1])
    one.add_argument("--workers", type=numbers, default=[1], help="of a node")
    one.add_argument("--gpus", type=int, default=0, help="of a node")
    one.add_argument("--engine", choices=("local", "ray"), default="ray")
    one.add_argument("--chunk", type=int, default=16)
    one.add_argument("--round", type=int, default=0, help="recordings handed to Ray at once; 0 = as the job does")
    one.add_argument("--boot", type=float, default=0.0, help="seconds until a node is there")
    one.add_argument("--per-minute", type=float, default=0.0, help="nodes that are added in a minute; 0 = all at once")
    one.add_argument("--idle", type=float, default=float("inf"), help="seconds until an idle node is given back")
    one.add_argument("--speed", type=float, default=1.0, help="of a node's cores, relative to the measured ones")
    one.add_argument("--stragglers", type=float, default=0.0, help="standard deviation of the logarithm of node speed")
    one.add_argument("--node-failures", type=float, default=0.0, help="per node and hour")
    one.add_argument("--worker-crashes", type=float, default=0.0, help="per worker and hour")
    one.add_argument("--link", type=float, default=float("inf"), help="Gbit/s that a node reads")
    one.add_argument("--storage", type=float, default=float("inf"), help="Gbit/s that all nodes read")
    one.add_argument("--price", type=float, default=0.0, help="of a node and hour")
    one.add_argument("--driver-price", type=float, default=0.0, help="of the driver and hour")
    one.add_argument("--runs", type=int, default=5)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--json", action="store_true")


def _check(one: argparse.ArgumentParser) -> None:
    one.set_defaults(run=check)
    one.add_argument("manifest", type=Path)
    one.add_argument("--figures", type=Path, required=True)
    one.add_argument("--kill", action="store_true", help="also kill a worker half-way, where there are several")
    one.add_argument("--rounds", type=int, default=1)
    one.add_argument("--out", type=Path)
    _job(one)


if __name__ == "__main__":
    raise SystemExit(main())
