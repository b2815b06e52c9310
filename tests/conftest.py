"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

from vermilion.runtime import wait_passively

wait_passively()  # before torch is loaded: tests pass in their time beside other work too

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "public"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden data (not part of this repository)."""
    if not (GOLDEN / "manifest.json").exists():
        pytest.skip("the golden data (../shared/golden/public) are not beside this checkout")
    return GOLDEN
