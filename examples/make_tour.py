"""Builds tour.ogg from Debian's asterisk-core-sounds-{en,fr,es}-g722 and asterisk-moh-opsound-g722 (unpacked).

python examples/make_tour.py /usr/share/asterisk examples/tour.ogg
"""

import sys
from pathlib import Path

import av
import numpy as np

RATE = 16000
# (file below the sounds folder, seconds taken or None, fade in seconds)
PARTS = [
    ("sounds/en_US_f_Allison/demo-congrats.g722", None, 0.0),
    ("moh/manolo_camp-morning_coffee.g722", 8.0, 0.8),
    ("sounds/fr_CA_f_June/demo-echotest.g722", None, 0.0),
    ("sounds/es_MX_f_Allison/demo-thanks.g722", None, 0.0),
    ("sounds/en_US_f_Allison/demo-thanks.g722", None, 0.0),
]


def read(path: Path, seconds: float | None, fade: float) -> np.ndarray:
    with av.open(str(path), format="g722") as container:
        samples = np.concatenate([f.to_ndarray().reshape(-1) for f in container.decode(audio=0)])
    samples = samples.astype(np.float32) / 32768
    if seconds is not None:
        samples = samples[20 * RATE : int((20 + seconds) * RATE)]
    if fade:
        ramp = np.linspace(0, 1, int(fade * RATE), dtype=np.float32)
        samples[: len(ramp)] *= ramp
        samples[-len(ramp) :] *= ramp[::-1]
    return samples


def main() -> None:
    root, target = Path(sys.argv[1]), sys.argv[2]
    rng = np.random.default_rng(1)
    pieces = []
    for name, seconds, fade in PARTS:
        pieces += [read(root / name, seconds, fade), rng.normal(0, 1e-4, int(0.9 * RATE)).astype(np.float32)]
    samples = np.concatenate(pieces)
    with av.open(target, "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=RATE, layout="mono")
        stream.bit_rate = 40000
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    print(f"{target}: {len(samples) / RATE:.1f} s")


if __name__ == "__main__":
    main()
