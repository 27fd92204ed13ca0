"""The files that the containers of a pod share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from triptych_linux import mounts
from triptych_runtime.namespaces import PodFiles, PodFilesOptions
from triptych_runtime.namespaces.errors import DnsInvalid
from triptych_runtime.namespaces.files import resolv_conf
from triptych_runtime.network import PodDns

POD = "0" * 64


def test_resolv_conf() -> None:
    dns = PodDns(("10.0.0.10", "fd00::10"), ("a.svc", "svc"), ("ndots:5", "edns0"))
    assert resolv_conf(dns) == (
        "search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::10\noptions ndots:5 edns0\n"
    )
    assert resolv_conf(PodDns()) == ""
    assert resolv_conf(PodDns(searches=("x",))) == "search x\n"


@pytest.mark.parametrize(
    "dns",
    [PodDns(servers=("1.1.1.1\nnameserver 6.6.6.6",)), PodDns(searches=("a b",)), PodDns(options=("",))],
)
def test_values_that_would_break_out_are_refused(dns: PodDns) -> None:
    with pytest.raises(DnsInvalid):
        resolv_conf(dns)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (etc / "resolv.conf").write_text("nameserver 9.9.9.9\n")
    return etc


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    mounts.umount_below(tmp_path)


async def test_without_dns_the_hosts_own_is_used(state: Path, etc: Path) -> None:
    files = PodFiles(state, etc=etc)
    for dns in (None, PodDns()):
        paths = await files.create(POD, PodFilesOptions(hostname="web", dns=dns, shm_size=0))
        assert paths.resolv_conf.read_text() == "nameserver 9.9.9.9\n"
        assert paths.hosts.read_text() == "127.0.0.1 localhost\n"
        assert paths.hostname.read_text() == "web\n"
        assert paths.shm is None
    (etc / "resolv.conf").unlink()
    paths = await files.create(POD, PodFilesOptions(hostname="web", shm_size=0))
    assert paths.resolv_conf.read_text() == ""
    assert files.ids() == [POD]
    await files.destroy(POD)
    await files.destroy(POD)
    assert files.ids() == []


async def test_bad_dns_leaves_nothing(state: Path, etc: Path) -> None:
    files = PodFiles(state, etc=etc)
    with pytest.raises(DnsInvalid):
        await files.create(POD, PodFilesOptions(hostname="web", dns=PodDns(servers=("a b",))))
    assert files.ids() == []


@pytest.mark.integration
async def test_shared_memory_and_owner(state: Path, etc: Path) -> None:
    files = PodFiles(state, etc=etc)
    options = PodFilesOptions(hostname="web", owner=(100_000, 100_001), shm_size=1 << 20)
    paths = await files.create(POD, options)
    assert paths.shm is not None
    mount = mounts.mount_of(paths.shm)
    assert (mount.fstype, mount.mount_point) == ("tmpfs", str(paths.shm))
    assert {"nosuid", "nodev", "noexec"} <= set(mount.options.split(","))
    found = os.statvfs(paths.shm)
    assert found.f_blocks * found.f_frsize == 1 << 20
    assert paths.shm.stat().st_mode & 0o7777 == 0o1777
    status = paths.hosts.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (100_000, 100_001, 0o644)
    again = await files.create(POD, options)
    assert again == paths
    assert len([m for m in mounts.mount_table() if m.mount_point == str(paths.shm)]) == 1
    await files.destroy(POD)
    assert not paths.directory.exists()
    assert not mounts.is_mount_point(paths.shm)
