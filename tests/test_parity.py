"""Runs the golden checker over the adapter: every published answer, allowing only the differences we name."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def allowed_differences() -> set[str]:
    """Case ids named in DIFFERENCES.md, each in backquotes at the start of a table row."""
    text = (HERE / "parity" / "DIFFERENCES.md").read_text(encoding="utf8")
    return set(re.findall(r"^\| `([^`]+)`", text, re.M))


def test_every_golden_case(golden):
    checker = golden.parent / "check.py"
    command = [sys.executable, str(checker), "--root", str(golden), "--adapter", str(HERE / "parity" / "adapter.py")]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    failed = set(re.findall(r"^FAILED (\S+?):", output, re.M))
    table = dict(re.findall(r"^(\w+) +\d+ +\d+ +(\d+)$", output, re.M))
    assert table, output[-2000:]
    assert failed <= allowed_differences(), output[-4000:]
    assert not {kind for kind, skipped in table.items() if int(skipped)}, output[-2000:]
