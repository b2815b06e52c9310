"""The OpenAPI description is true: schemathesis asks what it allows, and what it does not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from server_helpers import serving, tone, wav

from vermilion.server.options import Limits

FILE = wav(tone(440, 0.5))
BEYOND = [positive_data_acceptance]
"""no schema says which bytes are a recording, and which texts name a language"""
SETTINGS = settings(
    max_examples=12, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def schema():
    limits = Limits(request_seconds=60, audio_seconds=60, upload_bytes=5_000_000, jobs=500, deadline=20)
    with serving(limits=limits) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda m: m.value)
def test_every_operation_answers_as_described(schema, mode):
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            cases = operation.as_strategy(generation_mode=mode)
        except schemathesis.errors.SchemathesisError:
            continue

        @SETTINGS
        @given(case=cases)
        def check(case):
            nonlocal count
            with_recording(case)
            case.call_and_validate(timeout=30, excluded_checks=BEYOND)
            count += 1

        try:
            check()
        except Exception as error:
            if type(error).__name__ in ("Unsatisfiable", "SkipTest", "Skipped"):
                continue  # this operation takes nothing that could be wrong
            raise
    assert count > 50


def with_recording(case):
    """Half of the forms carry a real recording: random bytes alone would never get past the decoder."""
    if isinstance(case.body, dict) and isinstance(case.body.get("file"), bytes) and len(case.body["file"]) % 2:
        case.body["file"] = FILE
