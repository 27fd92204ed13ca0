"""What a stop may take, against what the units allow."""

from __future__ import annotations

from pathlib import Path

import pytest
from triptych_runtime import daemon as runtime
from triptych_service import ServiceSettings, running, telemetry

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["image", "runtime", "streaming", "streaming@"])
def test_a_stop_with_the_default_grace_fits_the_unit(name: str) -> None:
    lines = (ROOT / f"deploy/systemd/triptych-{name}.service").read_text().splitlines()
    (allowed,) = (line for line in lines if line.startswith("TimeoutStopSec="))
    grace = ServiceSettings().grace_seconds
    assert allowed == f"TimeoutStopSec={grace + running.END_SECONDS:.0f}s"
    ended = runtime._DRAIN_SECONDS + runtime._UNDO_SECONDS + runtime._THREAD_SECONDS
    assert ended + telemetry.LAST_SECONDS < running.END_SECONDS
