"""`./dev package` as it is run; the command tries each thing that it built."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from triptych_dev.node.shell import CHECKOUT_ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs Debian's package python3"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def test_everything_is_built_and_works(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    done = subprocess.run(
        [sys.executable, "-m", "triptych_dev", "package", "--dist", dist], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the three daemons serve their sockets, and end when told") == 3
    names = {path.name for path in dist.rglob("*") if path.is_file()}
    assert {f"triptych{end}.pex" for end in ("", "-image", "-runtime", "-streaming")} <= names
    wheels = [name for name in names if name.startswith("triptych_") and name.endswith(".whl")]
    assert len(wheels) == len(list(CHECKOUT_ROOT.glob("*/*/pyproject.toml")))
    assert len([name for name in names if name.endswith(".deb")]) == 1
    for line in (dist / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest
    package = next(dist.glob("*.deb"))
    control = subprocess.run(
        ["dpkg-deb", "--info", package], capture_output=True, text=True, check=True
    ).stdout
    assert "Package: triptych\n" in control and "conmon" in control
    listing = subprocess.run(
        ["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True
    ).stdout
    for path in (
        "./usr/lib/systemd/system/triptych-runtime.service",
        "./usr/bin/triptych",
        "./etc/triptych/image.toml",
        "./usr/lib/tmpfiles.d/triptych.conf",
    ):
        assert path in listing
    assert "./usr/lib/triptych/share/doc/examples/cni/10-triptych.conflist" in listing
    assert "/etc/crictl.yaml" not in listing and "/etc/cni" not in listing
    assert "the package is installed and purged without a trace" in done.stdout
