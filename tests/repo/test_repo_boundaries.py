"""The services never import each other, and libraries import neither services nor tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from triptych_dev.node.shell import CHECKOUT_ROOT


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-cache"], cwd=CHECKOUT_ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


def test_test_files_have_unique_names() -> None:
    names: dict[str, Path] = {}
    for top in ("libs", "services", "tools", "tests"):
        for path in (CHECKOUT_ROOT / top).rglob("test_*.py"):
            assert path.name not in names, f"{path} and {names[path.name]}"
            names[path.name] = path
    assert names
