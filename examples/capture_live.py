"""A picture of `vermilion live` in a terminal: docs/live.svg.

    pip install pyte
    python examples/capture_live.py docs/live.svg --at 12

The command runs in a pseudo terminal on the example recording; the picture is the screen after so many seconds of it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

TOUR = Path(__file__).parent / "tour.ogg"
WIDTH, HEIGHT = 100, 22


def screen_after(seconds: float, command: list[str]) -> pyte.Screen:
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    pid, master = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(WIDTH), LINES=str(HEIGHT))
        os.execvp(command[0], command)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    began = None
    while began is None or time.monotonic() - began < seconds:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        data = os.read(master, 65536)
        stream.feed(data)
        if began is None and b"models:" in data:
            began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return screen


def text_of(screen: pyte.Screen) -> Text:
    text = Text()
    for y in range(screen.cursor.y + 1):
        for x in range(WIDTH):
            cell = screen.buffer[y][x]
            colour = None if cell.fg == "default" else cell.fg.replace("brown", "yellow")
            text.append(cell.data, Style(color=colour, bold=cell.bold, italic=cell.italics, dim=dimmed(screen, y, x)))
        text.append("\n")
    return text


def dimmed(screen: pyte.Screen, y: int, x: int) -> bool:
    """The last line that is no final is what is still being spoken (pyte knows no dim)."""
    line = "".join(screen.buffer[y][i].data for i in range(WIDTH)).rstrip()
    return line.endswith("…") or line.startswith("models:")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", type=float, default=12.0)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "vermilion", "live", str(TOUR), "--models", "starter"]
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(text_of(screen_after(arguments.at, command)), end="")
    console.save_svg(str(arguments.output), title="vermilion live examples/tour.ogg")


if __name__ == "__main__":
    main()
