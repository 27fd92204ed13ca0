"""Pinned namespaces on the real kernel: what is in them, how they end, what is refused."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from triptych_dev.patience import PATIENCE
from triptych_linux import mounts, pidfd
from triptych_runtime.namespaces import (
    IdMapping,
    InitProcess,
    NamespaceOptions,
    NamespaceSettings,
    PinnedNamespaces,
    PodInit,
    PodNamespaces,
    UserMappings,
)
from triptych_runtime.namespaces.errors import (
    HostnameInvalid,
    InitFailed,
    MappingInvalid,
    NamespaceFailed,
    SysctlRefused,
)

pytestmark = pytest.mark.integration

POD = "0" * 63 + "1"
RANGE = (IdMapping(0, 100_000, 65_536),)
USERS = UserMappings(RANGE, RANGE)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    mounts.umount_below(tmp_path)
    assert not [m for m in mounts.mount_table() if m.mount_point.startswith(str(tmp_path))]


@pytest.fixture
async def pods(state: Path) -> PodNamespaces:
    pods = PodNamespaces(state)
    await pods.start()
    return pods


def inside(pinned: PinnedNamespaces, *command: str) -> str:
    enter = [f"--{kind}={path}" for kind, path in pinned.paths().items() if kind != "pid"]
    return subprocess.run(["nsenter", *enter, *command], check=True, capture_output=True, text=True).stdout


def identities(pinned: PinnedNamespaces) -> dict[str, int]:
    return {kind: os.stat(path).st_ino for kind, path in pinned.paths().items()}


def host(kind: str) -> int:
    return os.stat(f"/proc/self/ns/{kind}").st_ino


async def test_own_namespaces_are_set_up(pods: PodNamespaces) -> None:
    sysctls = {"kernel.shmmax": "1048576", "net/core/somaxconn": "777", "kernel.domainname": "example.org"}
    sysctls |= {"fs.mqueue.msg_max": "12"}
    pinned = await pods.create(POD, NamespaceOptions(hostname="web-0", sysctls=sysctls))
    assert sorted(pinned.paths()) == ["ipc", "net", "uts"]
    assert all(number != host(kind) for kind, number in identities(pinned).items())
    assert inside(pinned, "uname", "-n").strip() == "web-0"
    assert "LOOPBACK,UP" in inside(pinned, "ip", "link", "show", "lo")
    assert inside(pinned, "cat", "/proc/sys/kernel/shmmax", "/proc/sys/net/core/somaxconn").split() == [
        "1048576",
        "777",
    ]
    assert inside(pinned, "cat", "/proc/sys/kernel/domainname", "/proc/sys/fs/mqueue/msg_max").split() == [
        "example.org",
        "12",
    ]
    assert inside(pinned, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").strip() == "0"
    assert inside(pinned, "cat", "/proc/sys/net/ipv4/ping_group_range").split() == ["0", "2147483647"]
    assert os.uname().nodename != "web-0"
    assert pods.ids() == [POD]
    assert pods.get(POD) == pinned
    await pods.destroy(POD)
    await pods.destroy(POD)
    assert pods.ids() == []
    assert pods.get(POD).paths() == {}


async def test_defaults_can_be_turned_off_and_overridden(state: Path) -> None:
    pods = PodNamespaces(state, NamespaceSettings(unprivileged_ports=False, unprivileged_icmp=False))
    await pods.start()
    pinned = await pods.create(POD, NamespaceOptions(sysctls={"net.ipv4.ping_group_range": "5 6"}))
    assert inside(pinned, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").strip() == "1024"
    assert inside(pinned, "cat", "/proc/sys/net/ipv4/ping_group_range").split() == ["5", "6"]
    await pods.destroy(POD)


async def test_host_namespaces_are_left_alone(pods: PodNamespaces) -> None:
    before = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    pinned = await pods.create(POD, NamespaceOptions(network=False, uts=False, hostname="ignored"))
    assert sorted(pinned.paths()) == ["ipc"]
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == before
    assert os.uname().nodename != "ignored"
    await pods.destroy(POD)
    nothing = await pods.create(POD, NamespaceOptions(network=False, uts=False, ipc=False))
    assert nothing.paths() == {}
    assert pods.ids() == [POD]
    await pods.destroy(POD)


@pytest.mark.parametrize("network", [True, False])
async def test_user_namespace_owns_the_others(pods: PodNamespaces, network: bool) -> None:
    sysctls = {"kernel.shmmax": "1048576", "kernel.sem": "250 32000 100 128"}
    options = NamespaceOptions(hostname="mapped", network=network, uts=network, users=USERS, sysctls=sysctls)
    pinned = await pods.create(POD, options)
    assert sorted(pinned.paths()) == (["ipc", "net", "user", "uts"] if network else ["ipc", "user"])
    assert inside(pinned, "cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]
    assert inside(pinned, "cat", "/proc/self/gid_map").split() == ["0", "100000", "65536"]
    assert inside(pinned, "cat", "/proc/sys/kernel/shmmax").strip() == "1048576"
    if network:
        # Its root may change what its namespaces own: so they are owned by the new user namespace.
        inside(pinned, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        inside(pinned, "hostname", "changed")
        assert "LOOPBACK,UP" in inside(pinned, "ip", "link", "show", "lo")
    assert Path("/proc/self/status").read_text().count("Uid:\t0\t0\t0\t0") == 1
    await pods.destroy(POD)
    assert pods.ids() == []


@pytest.mark.parametrize(
    ("sysctls", "text"),
    [
        ({"vm.swappiness": "1"}, "'vm.swappiness' is not namespaced"),
        ({"kernel.pid_max": "1"}, "not namespaced"),
        ({"kernel.hostname": "x"}, "conflicts with the pod's hostname"),
        ({"net..x": "1"}, "is not the name of a sysctl"),
        ({"net.ipv4/../../kernel.pid_max": "1"}, "is not the name of a sysctl"),
        ({"net.ipv4.no_such_thing": "1"}, "this kernel has none of that name"),
        ({"net.ipv4.ip_forward": "many"}, "value 'many': Invalid argument"),
    ],
)
async def test_sysctls_that_are_refused(pods: PodNamespaces, sysctls: dict[str, str], text: str) -> None:
    with pytest.raises(SysctlRefused, match=text):
        await pods.create(POD, NamespaceOptions(sysctls=sysctls))
    assert pods.ids() == []


async def test_sysctls_of_the_hosts_namespaces_are_refused(pods: PodNamespaces) -> None:
    with pytest.raises(SysctlRefused, match="the pod uses the host's NETWORK namespace"):
        pods.check(NamespaceOptions(network=False, sysctls={"net.ipv4.ip_forward": "1"}))
    with pytest.raises(SysctlRefused, match="the host's IPC namespace"):
        pods.check(NamespaceOptions(ipc=False, sysctls={"kernel.sem": "1"}))


async def test_sysctls_of_an_interface_wait_for_it(pods: PodNamespaces) -> None:
    options = NamespaceOptions(
        sysctls={"net.ipv4.conf.eth0.arp_ignore": "2", "net.ipv4.conf.all.arp_filter": "1"}
    )
    pinned = await pods.create(POD, options)
    assert inside(pinned, "cat", "/proc/sys/net/ipv4/conf/all/arp_filter").strip() == "1"
    with pytest.raises(SysctlRefused, match="eth0"):
        await pods.finish(POD, options)
    inside(pinned, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "v1")
    await pods.finish(POD, options)
    assert inside(pinned, "cat", "/proc/sys/net/ipv4/conf/eth0/arp_ignore").strip() == "2"
    await pods.destroy(POD)


@pytest.mark.parametrize(
    "mappings",
    [
        (),
        (IdMapping(0, 100_000, 0),),
        (IdMapping(0, -1, 10),),
        (IdMapping(0, (1 << 32) - 5, 10),),
        (IdMapping(0, 100_000, 10), IdMapping(5, 200_000, 10)),
        (IdMapping(0, 100_000, 10), IdMapping(10, 100_005, 10)),
    ],
)
async def test_mappings_that_are_refused(pods: PodNamespaces, mappings: tuple[IdMapping, ...]) -> None:
    with pytest.raises(MappingInvalid):
        await pods.create(POD, NamespaceOptions(users=UserMappings(RANGE, mappings)))
    assert pods.ids() == []


async def test_hostnames_that_are_refused(pods: PodNamespaces) -> None:
    for name in ("x" * 65, "two words", "line\nbreak"):
        with pytest.raises(HostnameInvalid):
            await pods.create(POD, NamespaceOptions(hostname=name))


async def test_an_existing_pod_is_not_overwritten(pods: PodNamespaces) -> None:
    pinned = await pods.create(POD, NamespaceOptions())
    before = identities(pinned)
    with pytest.raises(NamespaceFailed):
        await pods.create(POD, NamespaceOptions())
    assert identities(pods.get(POD)) == before
    await pods.destroy(POD)


async def test_cancelled_creation_leaves_nothing(pods: PodNamespaces) -> None:
    for users in (None, USERS):
        task = asyncio.ensure_future(pods.create(POD, NamespaceOptions(users=users)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pods.ids() == []


async def test_pins_reach_mount_namespaces_that_follow_ours(pods: PodNamespaces, state: Path) -> None:
    """A sandboxed service sees later pins, and keeps none that was removed."""
    ns = state / "ns"
    script = "mount --make-rslave /; echo ready; read line; mountpoint -q $1/net && echo seen; read line; "
    script += "mountpoint -q $1/net || echo gone"
    argv = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, "sh", str(ns / POD)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == "ready\n"
        await pods.create(POD, NamespaceOptions())
        print("", file=other.stdin, flush=True)
        assert other.stdout.readline() == "seen\n"
        await pods.destroy(POD)
        print("", file=other.stdin, flush=True)
        assert other.stdout.readline() == "gone\n"
    assert len([m for m in mounts.mount_table() if m.mount_point == str(ns)]) == 1
    await PodNamespaces(state).start()
    assert len([m for m in mounts.mount_table() if m.mount_point == str(ns)]) == 1


async def test_many_pods_at_once(pods: PodNamespaces) -> None:
    names = [f"{index:064x}" for index in range(30)]
    pinned = await asyncio.gather(
        *(pods.create(name, NamespaceOptions(hostname=name[-8:])) for name in names)
    )
    assert len({identities(each)["net"] for each in pinned}) == len(names)
    await asyncio.gather(*(pods.destroy(name) for name in names))
    assert pods.ids() == []


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


async def ended(init: InitProcess) -> None:
    async with asyncio.timeout(5 * PATIENCE):
        while init.identity.alive():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("users", [None, USERS])
async def test_init_of_a_shared_pid_namespace(
    pods: PodNamespaces, state: Path, users: UserMappings | None
) -> None:
    pinned = await pods.create(POD, NamespaceOptions(users=users))
    inits = PodInit(state)
    placed: list[int] = []

    async def place(pid: int) -> None:
        placed.append(pid)

    init = await inits.start(pinned, place, users=users)
    assert placed == [init.pid]
    pinned = pods.get(POD)
    assert identities(pinned)["pid"] == os.stat(f"/proc/{init.pid}/ns/pid").st_ino != host("pid")
    for kind in ("net", "ipc", "uts"):
        assert identities(pinned)[kind] == os.stat(f"/proc/{init.pid}/ns/{kind}").st_ino
    status = status_of(init.pid)
    assert status["NSpid"].split()[-1] == "1"
    assert {status[key] for key in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert status["Uid"].split()[0] == ("65535" if users is None else "165535")
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.listdir(f"/proc/{init.pid}/root") == ["pause"]
    with pytest.raises(OSError, match="Read-only"):
        Path(f"/proc/{init.pid}/root/x").touch()
    # The daemon itself is as it was.
    own = status_of(os.getpid())
    assert (own["Uid"].split(), own["Seccomp"]) == (["0"] * 4, "0")
    assert os.listdir("/") != ["pause"]

    # Orphans are reaped: the shell leaves a child behind, which ends.
    enter = ["nsenter", f"--pid={pinned.pid}"]
    subprocess.run([*enter, "sh", "-c", "(sleep 0.1; exit 3) & exit 0"], check=True)
    async with asyncio.timeout(5 * PATIENCE):
        while Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split():
            await asyncio.sleep(0.01)

    # Its end ends everything in its namespace.
    with subprocess.Popen([*enter, "sleep", "60"]) as sleeper:
        await asyncio.sleep(0.1)
        await inits.stop(init)
        assert sleeper.wait(5 * PATIENCE) != 0
    await inits.stop(init)
    assert not init.identity.alive()
    await pods.destroy(POD)
    assert pods.ids() == []


async def test_init_is_found_again(pods: PodNamespaces, state: Path) -> None:
    pinned = await pods.create(POD, NamespaceOptions())

    async def place(_pid: int) -> None:
        pass

    init = await PodInit(state).start(pinned, place)
    successor = PodInit(state)
    assert successor.resume(POD, init)
    assert not successor.resume(POD, InitProcess(init.pid, init.start_ticks + 1))
    await successor.stop(init)
    await ended(init)
    assert not successor.resume(POD, init)
    with pytest.raises(ProcessLookupError):
        pidfd.ProcessIdentity(init.pid, init.start_ticks).open()
    await pods.destroy(POD)


@pytest.mark.parametrize("users", [None, USERS])
async def test_init_that_is_not_placed_in_time_is_ended(
    pods: PodNamespaces, state: Path, users: UserMappings | None
) -> None:
    pinned = await pods.create(POD, NamespaceOptions(users=users))
    placed: list[pidfd.ProcessIdentity] = []

    async def place(pid: int) -> None:
        placed.append(pidfd.ProcessIdentity.of(pid))
        await asyncio.Event().wait()

    inits = PodInit(state, NamespaceSettings(place_deadline=0.1))
    with pytest.raises(InitFailed, match=r"cgroup: no end after 0\.1 s"):
        await inits.start(pinned, place, users=users)
    assert not placed[0].alive()
    assert pods.get(POD).pid is None
    await pods.destroy(POD)


async def test_init_of_a_cancelled_start_is_ended(pods: PodNamespaces, state: Path) -> None:
    pinned = await pods.create(POD, NamespaceOptions())
    placed: list[pidfd.ProcessIdentity] = []

    async def place(pid: int) -> None:
        placed.append(pidfd.ProcessIdentity.of(pid))
        start.cancel()

    start = asyncio.create_task(PodInit(state).start(pinned, place))
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not placed[0].alive()
    assert pods.get(POD).pid is None
    await pods.destroy(POD)


async def test_init_that_is_born_too_late_is_ended(
    pods: PodNamespaces, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = await pods.create(POD, NamespaceOptions())
    module = importlib.import_module("triptych_runtime.namespaces.init")
    bear, go, born = module._born_here, threading.Event(), list[int]()

    def late(*arguments: Any) -> int:
        go.wait(60 * PATIENCE)
        born.append(bear(*arguments))
        return born[0]

    async def place(_pid: int) -> None:
        raise AssertionError("it is not to be placed any more")

    monkeypatch.setattr(module, "_born_here", late)
    settings = NamespaceSettings(deadline=0.2, place_deadline=0.2)
    with pytest.raises(InitFailed, match=r"no end after 0\.4 s"):
        await PodInit(state, settings).start(pinned, place)
    go.set()
    async with asyncio.timeout(60 * PATIENCE):
        while not born or Path("/proc", str(born[0])).exists():
            await asyncio.sleep(0.01)
    await pods.destroy(POD)


async def test_the_end_of_an_init_is_told(pods: PodNamespaces, state: Path) -> None:
    pinned = await pods.create(POD, NamespaceOptions())
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def place(_pid: int) -> None:
        pass

    inits = PodInit(state, ended=lambda sandbox: told.put_nowait(("first", sandbox)))
    init = await inits.start(pinned, place)
    successor = PodInit(state, ended=lambda sandbox: told.put_nowait(("second", sandbox)))
    for _ in range(2):
        assert successor.resume(POD, init)
    assert told.empty()
    os.kill(init.pid, signal.SIGKILL)
    async with asyncio.timeout(60 * PATIENCE):
        assert sorted([await told.get(), await told.get()]) == [("first", POD), ("second", POD)]
    assert told.empty()
    await pods.destroy(POD)


async def test_init_that_cannot_start_leaves_nothing(pods: PodNamespaces, state: Path) -> None:
    pinned = await pods.create(POD, NamespaceOptions())

    async def place(_pid: int) -> None:
        raise OSError("no cgroup")

    with pytest.raises(InitFailed, match="no cgroup"):
        await PodInit(state).start(pinned, place)
    with pytest.raises(InitFailed, match="No such file"):
        await PodInit(state, NamespaceSettings(init="/nonexistent")).start(pinned, place)
    assert pods.get(POD).pid is None
    users = await pods.create("2" * 64, NamespaceOptions(users=USERS))
    with pytest.raises(InitFailed, match="No such file"):
        await PodInit(state, NamespaceSettings(init="/nonexistent")).start(users, place, users=USERS)
    await pods.destroy("2" * 64)
    await pods.destroy(POD)
