"""Runs the fuzz target for a short while; TRIPTYCH_FUZZ_SECONDS gives it longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).with_name("fuzz_spdy.py")
RECORDED = Path(__file__).parents[1] / "recorded"


@pytest.mark.slow
def test_nothing_but_events_and_protocol_errors(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in RECORDED.glob("*.json"):
        for index, side in enumerate("SC"):
            sides = json.loads(path.read_text())
            data = b"".join(bytes.fromhex(text) for each, text in sides if each == side)
            (corpus / f"{path.stem}-{side}").write_bytes(
                bytes((index ^ 0xFD,)) + data.partition(b"\r\n\r\n")[2]
            )
    seconds = os.environ.get("TRIPTYCH_FUZZ_SECONDS", "10")
    argv = [sys.executable, str(TARGET), f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=512"]
    done = subprocess.run(
        [*argv, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        text=True,
        timeout=float(seconds) + 60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
