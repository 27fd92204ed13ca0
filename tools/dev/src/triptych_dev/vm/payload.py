"""The disk that carries the checkout, its Python packages and a job into the node."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from triptych_dev.node.shell import uv
from triptych_dev.vm.errors import MachineFailed
from triptych_dev.vm.image import make_ext4

_NOT_NEEDED = ("atheris*", "mypy*", "ruff*", "grpc_tools", "kubernetes*", "pip*")
_SPARE_MIB = 256


def make_payload(checkout: Path, job: str, disk: Path, extra: Mapping[str, Path] | None = None) -> None:
    """Write the payload disk.

    The checkout is carried as git sees it, with changes that are not committed, and so is the
    environment in .venv, which gets the node's own Python.

    :param job: a bash script; runs as root in the checkout, at the same path as here.
    :param extra: more directories, by their names below /payload.
    :raises MachineFailed: when the disk cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="payload-", dir=disk.parent) as scratch:
        root = Path(scratch)
        (root / "checkout.path").write_text(f"{checkout}\n")
        (root / "job.sh").write_text(job)
        _copy_checkout(checkout, root / "checkout")
        _compile(root / "checkout", checkout)
        _copy_environment(checkout / ".venv", root / "checkout/.venv")
        # `install` builds the node's environment with it.
        (root / "checkout/.dev/bin").mkdir(parents=True)
        shutil.copy2(uv(), root / "checkout/.dev/bin/uv")
        for name, source in (extra or {}).items():
            shutil.copytree(source, root / name, symlinks=True)
        size = sum(path.lstat().st_size + 2048 for path in root.rglob("*")) >> 20
        make_ext4(disk, root, size + size // 8 + _SPARE_MIB)


def _copy_checkout(checkout: Path, target: Path) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        raise MachineFailed(f"{checkout} is no git checkout: {listing.stderr.decode().strip()}")
    for name in filter(None, listing.stdout.decode(errors="surrogateescape").split("\0")):
        source, copy = checkout / name, target / name
        if source.is_symlink() or source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def _compile(copy: Path, checkout: Path) -> None:
    """Bytecode of the checkout; compiling is slow on an emulated processor."""
    argv = [sys.executable, "-m", "compileall", "-q", "-j", "0", "-s", str(copy), "-p", str(checkout)]
    subprocess.run([*argv, *(str(copy / name) for name in ("libs", "services", "tools"))], check=False)


def _copy_environment(environment: Path, target: Path) -> None:
    packages = f"lib/python{sysconfig.get_python_version()}/site-packages"
    ignore = shutil.ignore_patterns(*_NOT_NEEDED)
    shutil.copytree(environment / packages, target / packages, symlinks=True, ignore=ignore)
    shutil.copytree(environment / "bin", target / "bin", symlinks=True, ignore=ignore)
    for name in ("python", "python3", f"python{sysconfig.get_python_version()}"):
        (target / "bin" / name).unlink(missing_ok=True)
        (target / "bin" / name).symlink_to(f"/usr/bin/python{sysconfig.get_python_version()}")
    (target / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
