"""Runs the fuzz target for a short while.

CI takes the same inputs in the same order each time, so that it fails for what changed and not by chance.
Elsewhere the inputs differ from run to run; TRIPTYCH_FUZZ_SECONDS gives it longer.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

TARGET = Path(__file__).with_name("fuzz_layer.py")
SECONDS = float(os.environ.get("TRIPTYCH_FUZZ_SECONDS", "10"))
# The target imports and instruments first, and reports its last input within a minute.
LIMIT = SECONDS + 300


@pytest.mark.slow
@pytest.mark.timeout(LIMIT + 60)
def test_nothing_but_entries_and_refusals(tmp_path: Path, tar: Any) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a", "é" * 60, "d/x"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 100, 1.5
            archive.addfile(info, io.BytesIO(b"x" * 100))
    sparse = tar().pax({b"GNU.sparse.map": b"0,1,9,2", b"GNU.sparse.size": b"20"}).file(b"s", b"abc")
    first = tar().pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"20"})
    first.file(b"s", b"1\n0\n3\n".ljust(512, b"\0") + b"abc")
    long = tar().header(b"x", kind=b"L", size=5).body(b"long\0").file(b"x", b"1").hard_link(b"h", b"x")
    for number, data in enumerate((out.getvalue(), sparse.end(), first.end(), long.end())):
        (corpus / f"m{number}").write_bytes(b"m" + data)
        (corpus / f"z{number}").write_bytes(gzip.compress(data))
    argv = [
        sys.executable,
        str(TARGET),
        f"-max_total_time={SECONDS:.0f}",
        "-max_len=8192",
        "-rss_limit_mb=1024",
    ]
    if os.environ.get("CI"):
        argv.append("-seed=1")
    done = subprocess.run(
        [*argv, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
