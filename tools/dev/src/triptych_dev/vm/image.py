"""Builds the node's disk image from Debian's packages, once for each recipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triptych_dev.vm import recipe
from triptych_dev.vm.errors import MachineFailed, MachineUnavailable

_NEEDED = {
    "debootstrap": "debootstrap",
    "mke2fs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86",
}
"""Programs and the Debian packages that have them."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Image:
    """A built image.

    :param disk: the root file system (ext4), never written to.
    """

    disk: Path
    kernel: Path
    initrd: Path


def ensure_image(cache: Path, say: Say) -> Image:
    """The image of the recipe, built if the cache has none.

    :param cache: directory of images, `.dev/node` of a checkout.
    :raises MachineUnavailable: when this host lacks what a build needs.
    :raises MachineFailed: when a step of the build fails.
    """
    _check()
    home = cache / recipe.key()
    image = Image(home / "root.img", home / "vmlinuz", home / "initrd")
    if home.exists():
        return image
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="build-", dir=cache))
    try:
        root = scratch / "root"
        say(f"node image {recipe.key()}: {len(recipe.PACKAGES)} packages by debootstrap (some minutes)")
        _bootstrap(root, scratch / "build.log")
        done = scratch / "done"
        done.mkdir()
        for name, target in (("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")):
            shutil.copy(root / "boot" / _newest(root, name), done / target)
        say("node image: file system")
        make_ext4(done / "root.img", root, recipe.SIZE_MIB)
        # Renamed when whole, so that an interrupted build is no image.
        done.rename(home)
        _forget_others(cache, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return image


def make_ext4(disk: Path, source: Path, size_mib: int) -> None:
    """Write a directory tree as an ext4 image.

    :raises MachineFailed: when it does not fit.
    """
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1"]
    run(["mke2fs", *options, "-d", str(source), str(disk), f"{size_mib}M"], "mke2fs")


def run(argv: list[str], step: str, log: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a step of a build to its end.

    :raises MachineFailed: with the end of what it said.
    """
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, check=False)
    if log is not None:
        with log.open("ab") as file:
            file.write(done.stdout + done.stderr)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
        raise MachineFailed(f"{step}: exit status {done.returncode}: " + "\n".join(said[-12:]))


def _check() -> None:
    missing = sorted(package for program, package in _NEEDED.items() if shutil.which(program) is None)
    if missing:
        raise MachineUnavailable(
            "the virtual node needs programs that are not here",
            hint=f"apt-get install {' '.join(missing)}",
        )
    if os.geteuid() != 0:
        raise MachineUnavailable("building the virtual node's image needs root (debootstrap)")


def _bootstrap(root: Path, log: Path) -> None:
    include = ",".join(recipe.PACKAGES)
    run(
        ["debootstrap", "--variant=minbase", f"--include={include}", recipe.SUITE, str(root)],
        "debootstrap",
        log,
    )
    for name, text in {**recipe.FILES, **recipe.INITRAMFS}.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in recipe.EXECUTABLE else 0o644)
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    run(["chroot", str(root), "/bin/sh", "-c", recipe.SETUP], "configure the image", log, env)


def _forget_others(cache: Path, home: Path) -> None:
    """Images of older recipes; a machine that runs from one keeps its open files."""
    for disk in cache.glob("*/root.img"):
        if disk.parent != home:
            shutil.rmtree(disk.parent, ignore_errors=True)


def _newest(root: Path, prefix: str) -> str:
    found = sorted(path.name for path in (root / "boot").glob(f"{prefix}-*"))
    if not found:
        raise MachineFailed(f"the image has no {prefix}")
    return found[-1]
