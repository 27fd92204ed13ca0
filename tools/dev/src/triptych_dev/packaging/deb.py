"""A Debian package: the tree that `./dev install` makes, below /usr."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from triptych_dev.node import files, manifest
from triptych_dev.node.manager import SERVICES, SOCKETS
from triptych_dev.node.manifest import Kind
from triptych_dev.node.places import DEBIAN, inside
from triptych_dev.node.python_tree import Interpreter
from triptych_dev.node.python_tree import build as build_tree
from triptych_dev.node.shell import run

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
_UNITS = " ".join((*SERVICES, *SOCKETS))
_AFTER_INSTALL = f"""\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
systemd-tmpfiles --create triptych.conf || true
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable -q {_UNITS}
    /usr/lib/systemd/systemd-sysctl 60-triptych.conf || true
    systemctl start {" ".join(SOCKETS)}
    systemctl restart {" ".join(SERVICES)}
else
    systemctl enable -q {_UNITS} || true
fi
"""
_BEFORE_REMOVE = f"""\
#!/bin/sh
set -e
# An upgrade restarts the daemons when the new files are there; containers go on.
[ "$1" = remove ] || exit 0
if [ -d /run/systemd/system ]; then
    systemctl disable -q --now {_UNITS} triptych-nat.service || true
    systemctl stop triptych.slice || true
else
    systemctl disable -q {_UNITS} || true
fi
"""
_AFTER_REMOVE = """\
#!/bin/sh
set -e
[ -d /run/systemd/system ] && systemctl daemon-reload
if [ "$1" = purge ]; then
    mounts=$(grep -o ' /\\(run\\|var/lib\\)/triptych[^ ]*' /proc/self/mounts | sort -r)
    for mount in $mounts; do umount -l "$mount" || true; done
    rm -rf /etc/triptych /var/lib/triptych /run/triptych /var/cache/triptych
fi
exit 0
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
    """What belongs to others or to an operator is not in a package; examples of it lie with the docs."""
    examples = inside(root, DEBIAN.docs) / "examples"
    examples.mkdir(parents=True)
    shutil.copy(files.DEPLOY / "crictl.yaml", examples)
    shutil.copytree(files.DEPLOY / "kubelet", examples / "kubelet")
    (root / "etc/crictl.yaml").unlink(missing_ok=True)


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
        "".join(f"{path}\n" for path in sorted(kept) if path != "/etc/crictl.yaml")
    )
    for name, text in (("postinst", _AFTER_INSTALL), ("prerm", _BEFORE_REMOVE), ("postrm", _AFTER_REMOVE)):
        (control / name).write_text(text)
        (control / name).chmod(0o755)
