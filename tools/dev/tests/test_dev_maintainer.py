"""The Debian package's scripts, run by dpkg on a package with them and little else, in a directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from triptych_dev.node.files import DEPLOY
from triptych_dev.node.places import inside
from triptych_dev.node.shell import run
from triptych_dev.packaging.check import DPKG_STATE, dpkg
from triptych_dev.packaging.maintainer import CONFLIST, EXAMPLES, SCRIPTS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
SHIPPED = (DEPLOY / "cni" / CONFLIST.name).read_text()


def _package(scratch: Path, version: str, conflist: str = SHIPPED) -> Path:
    tree = scratch / f"tree-{version}"
    example = inside(tree, EXAMPLES) / "cni" / CONFLIST.name
    example.parent.mkdir(parents=True)
    example.write_text(conflist)
    control = tree / "DEBIAN"
    control.mkdir(mode=0o755)
    for name, text in SCRIPTS.items():
        (control / name).write_text(text)
        (control / name).chmod(0o755)
    (control / "control").write_text(
        f"Package: triptych\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@localhost>\n"
        "Description: its scripts\n"
    )
    target = scratch / f"{version}.deb"
    run(["dpkg-deb", "--root-owner-group", "--build", tree, target], step="build the package")
    return target


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return _package(tmp_path, "1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


def _left(root: Path) -> set[str]:
    """Files that are not dpkg's own."""
    files = (path.relative_to(root) for path in root.rglob("*") if not path.is_dir())
    return {str(path) for path in files if not path.is_relative_to(DPKG_STATE)}


def test_a_node_without_a_network_gets_one_until_the_package_goes(root: Path, package: Path) -> None:
    dpkg(root, "--install", package)
    assert inside(root, CONFLIST).read_text() == SHIPPED
    dpkg(root, "--remove", "triptych")
    assert _left(root) == set()
    dpkg(root, "--install", package)
    assert inside(root, CONFLIST).read_text() == SHIPPED
    dpkg(root, "--purge", "triptych")
    assert _left(root) == set()


@pytest.mark.parametrize("other", ["11-crio-ipv4-bridge.conflist", "10-weave.conf", "99-lo.json"])
def test_another_network_stays_the_only_one(root: Path, package: Path, other: str) -> None:
    theirs = inside(root, CONFLIST.parent) / other
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    dpkg(root, "--install", package)
    assert [path.name for path in theirs.parent.iterdir()] == [other]
    dpkg(root, "--purge", "triptych")
    assert _left(root) == {str(theirs.relative_to(root))}


def test_an_upgrade_takes_the_network_along_unless_it_was_edited(
    root: Path, package: Path, tmp_path: Path
) -> None:
    dpkg(root, "--install", package)
    conflist = inside(root, CONFLIST)
    dpkg(root, "--install", _package(tmp_path, "2", "newer"))
    assert conflist.read_text() == "newer"
    conflist.write_text("edited")
    dpkg(root, "--install", _package(tmp_path, "3", "newest"))
    dpkg(root, "--remove", "triptych")
    assert conflist.read_text() == "edited"
    dpkg(root, "--purge", "triptych")
    assert _left(root) == set()


def test_a_network_of_our_name_that_another_placed_is_not_touched(root: Path, package: Path) -> None:
    conflist = inside(root, CONFLIST)
    conflist.parent.mkdir(parents=True)
    conflist.write_text("from elsewhere")
    dpkg(root, "--install", package)
    dpkg(root, "--purge", "triptych")
    assert conflist.read_text() == "from elsewhere"


def test_a_purge_detaches_the_daemons_mounts_and_no_disk_of_an_operator(tmp_path: Path) -> None:
    script = tmp_path / "postrm"
    script.write_text(SCRIPTS["postrm"])
    run(["chmod", "+x", script], step="make it a program")
    disks, ours = ("/var/lib/triptych/image", "/run/triptych"), "/run/triptych/runtime/ns"
    other = "/var/lib/triptychs"
    # Nothing of this machine: these are empty in a mount namespace that goes with the shell.
    commands = "\n".join(
        (
            "set -e",
            *(f"mount -t tmpfs none {path}" for path in ("/etc", "/run", "/var/lib", "/var/cache")),
            *(f"mkdir -p {path} && mount -t tmpfs none {path}" for path in (*disks, ours, other)),
            "touch /var/lib/triptych/file /var/lib/triptych/image/file",
            f"{script} purge 2>/dev/null",
            "cut -d' ' -f2 /proc/self/mounts; find /var/lib/triptych /run/triptych",
        )
    )
    told = run(["unshare", "--mount", "sh", "-c", commands], step="purge").splitlines()
    assert {*disks, other} <= set(told) and ours not in told
    assert {line for line in told if line.startswith(("/var/lib/triptych/", "/run/triptych/"))} == {disks[0]}


@pytest.mark.parametrize(
    ("script", "argument", "done"),
    [
        ("postinst", "configure", "try-restart triptych-streaming@2.service"),
        ("prerm", "remove", "disable -q --now triptych-streaming@2.service triptych-image.service"),
    ],
)
def test_further_streaming_instances_are_upgraded_and_removed(
    tmp_path: Path, script: str, argument: str, done: str
) -> None:
    programs = {
        script: SCRIPTS[script],
        "systemctl": "#!/bin/sh\n"
        '[ "$1" != list-units ] || { echo triptych-streaming@2.service loaded active running; exit; }\n'
        'echo "did: $*"\n',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    commands = "\n".join(
        (
            "set -e",
            *(f"mount -t tmpfs none {path}" for path in ("/etc", "/run", "/var/lib")),
            f"mkdir -p /run/systemd/system {CONFLIST.parent}; touch {CONFLIST.parent / '1.conflist'}",
            f"PATH={tmp_path}:$PATH {tmp_path / script} {argument} 2>/dev/null",
        )
    )
    told = run(["unshare", "--mount", "sh", "-c", commands], step=script)
    assert any(line.startswith(f"did: {done}") for line in told.splitlines()), told
