"""A Debian package: the tree that `./dev install` makes, below /usr."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from triptych_dev.node import files, manifest
from triptych_dev.node.manifest import Kind
from triptych_dev.node.places import DEBIAN, inside
from triptych_dev.node.python_tree import Interpreter
from triptych_dev.node.python_tree import build as build_tree
from triptych_dev.node.shell import run
from triptych_dev.packaging.maintainer import EXAMPLES, SCRIPTS

_CONTROL = """\
Package: triptych
Version: {version}
Architecture: {architecture}
Maintainer: The triptych authors <triptych@localhost>
Installed-Size: {size}
Depends: python3 (>= 3.{minor}), python3 (<< 3.{next}), conmon, crun | runc, iptables, nftables, mount,
 systemd
Recommends: containernetworking-plugins, catatonit, golang-github-containers-common
Suggests: criu, apparmor
Section: admin
Priority: optional
Description: Kubernetes container runtime in three daemons
 triptych-image, triptych-runtime and triptych-streaming serve the kubelet's
 Container Runtime Interface (CRI v1) on separate sockets; each can be stopped,
 upgraded and restarted alone while containers go on.
"""


def build(dist: Path, interpreter: Interpreter) -> Path:
    """Make dist/triptych_VERSION_ARCH.deb from dist/wheels.

    :raises CommandFailed: dpkg-deb or a build failed.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-deb-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=0o755)
        root.chmod(0o755)
        build_tree(root, DEBIAN.prefix, interpreter, dist / "wheels", offline=False)
        record = manifest.Manifest(root)
        files.place_all(record, DEBIAN, kubelet=False)
        _drop_foreign(root)
        version = _version(root, interpreter)
        architecture = run(["dpkg", "--print-architecture"], step="architecture").strip()
        _control(root, record, interpreter, version, architecture)
        target = dist / f"triptych_{version}_{architecture}.deb"
        run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, target], step="build the package")
    return target


def _drop_foreign(root: Path) -> None:
    """What belongs to others or to an operator is not in a package; examples of it lie with the docs, and
    the script after the installation takes the pod network from there where there is none."""
    examples = inside(root, EXAMPLES)
    examples.mkdir(parents=True)
    shutil.copy(files.DEPLOY / "crictl.yaml", examples)
    for name in ("kubelet", "cni"):
        shutil.copytree(files.DEPLOY / name, examples / name)
    inside(root, files.CRICTL).unlink()
    shutil.rmtree(inside(root, files.CNI_CONFIG.parent))


def _version(root: Path, interpreter: Interpreter) -> str:
    site = inside(root, DEBIAN.prefix) / "lib" / interpreter.name / "site-packages"
    found = next(site.glob("triptych_runtime-*.dist-info"))
    return found.name.removeprefix("triptych_runtime-").removesuffix(".dist-info")


def _control(
    root: Path, record: manifest.Manifest, interpreter: Interpreter, version: str, architecture: str
) -> None:
    control = root / "DEBIAN"
    control.mkdir()
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file()) // 1024
    minor = interpreter.version[1]
    (control / "control").write_text(
        _CONTROL.format(version=version, architecture=architecture, size=size, minor=minor, next=minor + 1)
    )
    kept = [path for path, entry in record.entries.items() if entry.kind is Kind.CONFIG]
    (control / "conffiles").write_text(
        "".join(f"{path}\n" for path in sorted(kept) if inside(root, Path(path)).exists())
    )
    for name, text in SCRIPTS.items():
        (control / name).write_text(text)
        (control / name).chmod(0o755)
