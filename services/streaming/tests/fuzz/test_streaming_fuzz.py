"""Runs the fuzz target for a short while; TRIPTYCH_FUZZ_SECONDS gives it longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).with_name("fuzz_sessions.py")
RECORDED = Path(__file__).parents[1] / "recorded"
CHOICES = {"exec-spdy": 65, "exec-websocket": 66, "forward-spdy": 162, "forward-websocket": 163}


@pytest.mark.slow
def test_nothing_but_events_refusals_and_faults(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in RECORDED.glob("*.json"):
        sides = json.loads(path.read_text())
        data = b"".join(bytes.fromhex(text) for side, text in sides if side == "C")
        head, end, rest = data.partition(b"\r\n\r\n")
        (corpus / f"{path.stem}-head").write_bytes(b"\0" + head + end)
        choice = next(value for name, value in CHOICES.items() if name in path.stem)
        (corpus / f"{path.stem}-rest").write_bytes(bytes((choice,)) + rest)
    seconds = os.environ.get("TRIPTYCH_FUZZ_SECONDS", "10")
    argv = [sys.executable, str(TARGET), f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=512"]
    done = subprocess.run(
        [*argv, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        text=True,
        timeout=float(seconds) + 60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
