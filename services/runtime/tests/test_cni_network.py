"""The network with plugins that are scripts: chains, records, hangs, missing programs, versions, GC."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from triptych_dev.patience import PATIENCE
from triptych_linux.pidfd import ProcessIdentity
from triptych_runtime.network import Network, NetworkSettings, PodAttachment, PortMapping
from triptych_runtime.network.errors import (
    AnnotationInvalid,
    AttachmentUnknown,
    NetworkNotReady,
    PluginBusy,
    PluginFailed,
    PluginTimeout,
    ResultInvalid,
    TeardownFailed,
)

# Logs each call as a line of JSON, then does what the file NAME.COMMAND beside it says, else succeeds.
PLUGIN = """#!/bin/sh
here=$(dirname "$0"); name=$(basename "$0"); conf=$(cat); id=$CNI_CONTAINERID
printf '{"plugin":"%s","command":"%s","id":"%s","ifname":"%s","netns":"%s","args":"%s","conf":%s}\\n' \\
  "$name" "$CNI_COMMAND" "$id" "$CNI_IFNAME" "$CNI_NETNS" "$CNI_ARGS" "$conf" >> "$here/../calls"
if [ -e "$here/$name.$CNI_COMMAND" ]; then . "$here/$name.$CNI_COMMAND"; exit; fi
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}' ;;
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],
  "ips":[{"address":"10.9.0.2/24","interface":0}],"dns":{"domain":"'$name'"}}' ;;
esac
"""
REPLY = """echo '{"ips":[{"address":"10.9.0.3/24"}]}'"""
SANDBOX = "a" * 64


class Stop(Exception):
    """Ends the tasks of a network."""


@dataclass
class Node:
    """A node's directories."""

    root: Path

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the plugins were asked, without VERSION."""
        log = self.root / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [call for call in map(json.loads, lines) if call["command"] != "VERSION"]

    @property
    def sequence(self) -> list[str]:
        return [f"{call['command']} {call['plugin']}" for call in self.calls]

    def plugin(self, name: str, **behaviour: str) -> None:
        path = self.root / "bin" / name
        path.with_name(f".{name}").write_text(PLUGIN)
        path.with_name(f".{name}").chmod(0o755)
        for command, script in behaviour.items():
            self.behave(name, command, script)
        os.replace(path.with_name(f".{name}"), path)

    def behave(self, name: str, command: str, script: str | None) -> None:
        path = self.root / "bin" / f"{name}.{command}"
        if script is None:
            path.unlink()
        else:
            path.write_text(script)

    def configure(self, *plugins: dict[str, Any] | str, file: str = "10.conflist", **extra: Any) -> None:
        entries = [{"type": plugin} if isinstance(plugin, str) else plugin for plugin in plugins]
        document = {"cniVersion": "1.0.0", "name": "net", "plugins": entries, **extra}
        target = self.root / "conf" / file
        target.with_suffix(".tmp").write_text(json.dumps(document))
        os.replace(target.with_suffix(".tmp"), target)

    def network(self, **settings: Any) -> Network:
        common: dict[str, Any] = {
            "conf_dirs": (str(self.root / "conf"),),
            "bin_dirs": (str(self.root / "bin"),),
            "retry_seconds": 0.05,
            "setup_deadline": 5.0,
        }
        return Network(NetworkSettings(**(common | settings)), self.root / "data")

    @property
    def records(self) -> list[str]:
        return sorted(path.name for path in (self.root / "data" / "network").glob("*.json"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    for name in ("conf", "bin"):
        (tmp_path / name).mkdir()
    return Node(tmp_path)


@asynccontextmanager
async def running(network: Network) -> AsyncIterator[Network]:
    try:
        async with asyncio.TaskGroup() as tasks:
            await network.start(tasks)
            yield network
            raise Stop
    except* Stop:
        pass


def pod(sandbox_id: str = SANDBOX, **extra: Any) -> PodAttachment:
    netns = Path("/proc/self/ns/net")
    return PodAttachment(sandbox_id=sandbox_id, netns=netns, name="web", namespace="prod", uid="u", **extra)


async def until(condition: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true"
        await asyncio.sleep(0.01)


async def test_a_chain_forth_and_back(node: Node) -> None:
    node.plugin("main")
    node.plugin("second")
    node.configure({"type": "main", "mtu": 1400}, {"type": "second", "capabilities": {"portMappings": True}})
    async with running(node.network()) as network:
        result = await network.setup(pod(port_mappings=(PortMapping(80, 8080),)))
        assert result.ips == ["10.9.0.2"]
        assert network.result(SANDBOX) == result
        await network.check(SANDBOX)
        await network.teardown(SANDBOX, Path("/proc/self/ns/net"))
        assert network.result(SANDBOX) is None
        await network.teardown(SANDBOX, None)
    assert node.sequence == [
        "ADD main", "ADD second", "CHECK main", "CHECK second", "DEL second", "DEL main",
    ]  # fmt: skip
    first, second, *_, last = node.calls
    assert first["conf"] == {"type": "main", "mtu": 1400, "cniVersion": "1.0.0", "name": "net"}
    assert (first["id"], first["ifname"], first["netns"]) == (SANDBOX, "eth0", "/proc/self/ns/net")
    assert "K8S_POD_NAME=web" in first["args"]
    assert second["conf"]["prevResult"]["dns"] == {"domain": "main"}
    assert second["conf"]["runtimeConfig"]["portMappings"][0]["hostPort"] == 8080
    assert "capabilities" not in second["conf"]
    assert last["conf"]["prevResult"]["dns"] == {"domain": "second"}
    assert node.records == []


async def test_setup_twice_answers_the_same(node: Node) -> None:
    node.plugin("main")
    node.configure("main")
    async with running(node.network()) as network:
        first, second = await asyncio.gather(network.setup(pod()), network.setup(pod()))
        assert first == second
    assert node.sequence == ["ADD main"]


async def test_records_survive_a_restart_with_the_configuration_of_then(node: Node) -> None:
    node.plugin("main")
    node.configure({"type": "main", "mtu": 1400})
    async with running(node.network()) as network:
        result = await network.setup(pod())
    node.configure({"type": "main", "mtu": 9000})
    async with running(node.network()) as network:
        assert network.result(SANDBOX) == result
        assert network.attached() == {SANDBOX}
        await network.teardown(SANDBOX, None)
    assert [call["conf"]["mtu"] for call in node.calls] == [1400, 1400]


async def test_a_failed_setup_is_undone(node: Node) -> None:
    node.plugin("main")
    node.plugin("second", ADD='echo \'{"code":100,"msg":"no way","details":"at all"}\'; exit 1')
    node.configure("main", "second")
    async with running(node.network()) as network:
        with pytest.raises(PluginFailed, match="CNI plugin second: ADD: no way: at all") as caught:
            await network.setup(pod())
        assert caught.value.number == 100
        assert network.attached() == frozenset()
    assert node.sequence == ["ADD main", "ADD second", "DEL second", "DEL main"]
    assert node.records == []


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ('echo \'{"code":11,"msg":"wait"}\'; exit 1', PluginBusy, "wait"),
        ("echo oops >&2; exit 3", PluginFailed, "exit status 3: oops"),
        ("kill -9 $$", PluginFailed, "SIGKILL"),
        ("echo nonsense", ResultInvalid, "not a result"),
        ("echo '{}'", ResultInvalid, "no address"),
    ],
)
async def test_ways_to_fail(node: Node, script: str, error: type[Exception], text: str) -> None:
    node.plugin("main", ADD=script)
    node.configure("main")
    async with running(node.network()) as network:
        with pytest.raises(error, match=text):
            await network.setup(pod())
    assert node.sequence == ["ADD main", "DEL main"]
    assert node.records == []


async def test_a_hung_plugin_is_killed_and_undone(node: Node) -> None:
    node.plugin("main", ADD="echo $$ > $here/../pid; sleep 60 & wait")
    node.configure("main")
    async with running(node.network(setup_deadline=0.3)) as network:
        with pytest.raises(PluginTimeout, match="CNI plugin main: ADD"):
            await network.setup(pod())
    assert not Path("/proc", (node.root / "pid").read_text().strip()).exists()
    assert node.sequence == ["ADD main", "DEL main"]
    assert node.records == []


async def test_a_hung_pod_does_not_hold_up_others(node: Node) -> None:
    node.plugin(
        "main", ADD=f"case $CNI_CONTAINERID in {SANDBOX}) sleep 600;; *) CNI_COMMAND=ADD; esac\n" + REPLY
    )
    node.configure("main")
    # One place only: a plugin that hangs gives it up.
    async with running(node.network(setup_deadline=90.0, parallel=1)) as network:
        stuck = asyncio.ensure_future(network.setup(pod()))
        await until(lambda: node.calls)
        await network.setup(pod("b" * 64))
        assert not stuck.done(), "the other pod has waited for it"
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck


async def test_cancelled_setup_is_undone(node: Node) -> None:
    node.plugin("main", ADD="sleep 60")
    node.configure("main")
    async with running(node.network()) as network:
        task = asyncio.ensure_future(network.setup(pod()))
        await until(lambda: node.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert network.attached() == frozenset()
    assert node.sequence == ["ADD main", "DEL main"]


async def test_every_plugin_is_deleted_though_a_later_one_is_missing(node: Node) -> None:
    node.plugin("main")
    node.plugin("second")
    node.configure("main", "second")
    async with running(node.network(retry_seconds=60)) as network:
        await network.setup(pod())
        (node.root / "bin" / "second").unlink()
        with pytest.raises(TeardownFailed, match="CNI plugin 'second' not found"):
            await network.teardown(SANDBOX, None)
        assert node.sequence[-1] == "DEL main"
        assert network.result(SANDBOX) is None
        assert network.attached() == {SANDBOX}
        node.plugin("second")
        await network.teardown(SANDBOX, None)
    assert node.sequence[-2:] == ["DEL second", "DEL main"]
    assert node.records == []


async def test_failed_teardown_is_retried_in_the_background(node: Node) -> None:
    node.plugin("main", DEL="exit 1")
    node.configure("main")
    async with running(node.network()) as network:
        await network.setup(pod())
        with pytest.raises(TeardownFailed):
            await network.teardown(SANDBOX, None)
        await until(lambda: node.sequence.count("DEL main") >= 3)
        node.behave("main", "DEL", None)
        await until(lambda: not network.attached())
    assert node.records == []


async def test_what_a_crash_left_half_done_is_undone_at_start(node: Node) -> None:
    node.plugin("main", DEL="exit 1")
    node.configure("main")
    async with running(node.network(retry_seconds=60)) as network:
        await network.setup(pod())
        with pytest.raises(TeardownFailed):
            await network.teardown(SANDBOX, None)
    node.behave("main", "DEL", None)
    async with running(node.network()) as network:
        await until(lambda: not network.attached())
    assert node.records == []


# A daemon that attaches the pod, to be killed meanwhile.
DAEMON = """
import asyncio, sys
from pathlib import Path
from triptych_runtime.network import Network, NetworkSettings, PodAttachment

async def main(root, sandbox):
    settings = NetworkSettings(conf_dirs=(f"{root}/conf",), bin_dirs=(f"{root}/bin",))
    async with asyncio.TaskGroup() as tasks:
        network = Network(settings, root / "data")
        await network.start(tasks)
        pod = dict(sandbox_id=sandbox, netns=Path("/proc/self/ns/net"), name="a", namespace="b", uid="c")
        await network.setup(PodAttachment(**pod))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_a_plugin_that_outlives_its_daemon_ends_before_the_pod_is_detached(node: Node) -> None:
    wait = "while [ ! -e $here/../go ]; do sleep 0.02; done; touch $here/../late;"
    node.plugin("main", ADD=f"echo $$ > $here/../pid.new; mv $here/../pid.new $here/../pid; {wait} {REPLY}")
    node.configure("main")
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, node.root, SANDBOX])
    try:
        await until((node.root / "pid").exists, 60 * PATIENCE)
        daemon.kill()
        plugin = ProcessIdentity.of(int((node.root / "pid").read_text()))
        assert plugin.alive()
        async with running(node.network()) as network:
            await until(lambda: not network.attached(), 60 * PATIENCE)
        assert not plugin.alive()
    finally:
        (node.root / "go").touch()
        daemon.kill()
        daemon.wait()
    assert node.sequence == ["ADD main", "DEL main"]
    assert not (node.root / "late").exists()


async def test_a_damaged_record_is_put_aside(node: Node) -> None:
    node.plugin("main")
    node.configure("main")
    directory = node.root / "data" / "network"
    directory.mkdir(parents=True)
    (directory / f"{SANDBOX}.json").write_text("{")
    async with running(node.network()) as network:
        assert network.attached() == frozenset()
    assert (directory / f"{SANDBOX}.damaged").exists()


async def test_del_without_namespace(node: Node, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.touch()
    node.plugin("main")
    node.configure("main")
    async with running(node.network()) as network:
        attachment = PodAttachment(sandbox_id=SANDBOX, netns=gone, name="n", namespace="s", uid="u")
        await network.setup(attachment)
        await network.teardown(SANDBOX, gone)
    assert node.calls[-1]["netns"] == ""


async def test_plugins_with_nothing_to_do_are_not_run(node: Node) -> None:
    for name in ("main", "portmap", "bandwidth"):
        node.plugin(name)
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    limits = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    node.configure("main", ports, limits)
    async with running(node.network()) as network:
        await network.setup(pod())
        await network.teardown(SANDBOX, None)
        assert node.sequence == ["ADD main", "DEL main"]
        await network.setup(pod(port_mappings=(PortMapping(80, 8080),)))
        await network.teardown(SANDBOX, None)
        assert node.sequence[2:] == ["ADD main", "ADD portmap", "DEL portmap", "DEL main"]
    (node.root / "calls").unlink()
    node.configure("main", ports, limits | {"ingressRate": 1000, "ingressBurst": 1000})
    async with running(node.network()) as network:
        await network.setup(pod())
    assert node.sequence == ["ADD main", "ADD bandwidth"]


async def test_bad_annotation_runs_nothing(node: Node) -> None:
    node.plugin("main")
    node.configure("main")
    async with running(node.network()) as network:
        with pytest.raises(AnnotationInvalid):
            await network.setup(pod(annotations={"kubernetes.io/egress-bandwidth": "lots"}))
    assert node.calls == []


async def test_several_networks(node: Node) -> None:
    node.plugin("main")
    node.configure("main")
    node.configure("main", file="20.conflist", name="other")
    async with running(node.network(max_conf_num=0)) as network:
        result = await network.setup(pod())
        assert sorted(result.raw) == ["net", "other"]
        assert result.ips == ["10.9.0.2"]
        await network.teardown(SANDBOX, None)
    assert [(c["command"], c["ifname"]) for c in node.calls] == [
        ("ADD", "eth0"), ("ADD", "eth1"), ("DEL", "eth1"), ("DEL", "eth0"),
    ]  # fmt: skip


async def test_the_newest_version_that_all_plugins_speak(node: Node) -> None:
    node.plugin("main", VERSION='echo \'{"supportedVersions":["0.4.0","1.0.0"]}\'')
    node.configure("main", cniVersions=["0.4.0", "1.0.0", "1.1.0"])
    async with running(node.network()) as network:
        await network.setup(pod())
        assert node.calls[0]["conf"]["cniVersion"] == "1.0.0"
        # A changed program is asked again.
        node.plugin("main", VERSION='echo \'{"supportedVersions":["0.4.0"]}\'')
        node.configure("main", cniVersions=["1.0.0"], cniVersion="1.0.0")
        await until(lambda: not network.status().ready)
        assert "its plugins speak: main 0.4.0" in network.status().message


async def test_not_ready_names_the_directory(node: Node) -> None:
    async with running(node.network()) as network:
        status = network.status()
        assert (status.ready, status.reason) == (False, "NetworkPluginNotReady")
        assert f"cni config uninitialized: no CNI configuration in {node.root / 'conf'}" in status.message
        with pytest.raises(NetworkNotReady, match="no CNI configuration in"):
            await network.setup(pod())
        await network.gc([])


async def test_configuration_and_plugins_are_noticed_when_they_come(node: Node) -> None:
    directory = node.root / "later" / "net.d"
    async with running(node.network(conf_dirs=(str(directory),))) as network:
        assert not network.status().ready
        directory.mkdir(parents=True)
        document = {"cniVersion": "1.0.0", "name": "late", "plugins": [{"type": "main"}]}
        (directory / "10.conflist").write_text(json.dumps(document))
        await until(lambda: "'main' not found" in network.status().message)
        node.plugin("main")
        await until(lambda: network.status().ready)
        assert network.status().networks == (("late", str(directory / "10.conflist")),)
        (directory / "00-bad.conflist").write_text("{")
        await until(lambda: "00-bad.conflist" in network.status().message)
        assert network.status().ready
        (directory / "10.conflist").unlink()
        await until(lambda: not network.status().ready)
        (directory / "00-bad.conflist").unlink()
        directory.rmdir()
        (node.root / "conf" / "x").touch()
        directory.mkdir()
        (directory / "10.conflist").write_text(json.dumps(document))
        await until(lambda: network.status().ready)


async def test_a_plugin_that_could_not_tell_its_versions_is_asked_again(node: Node) -> None:
    """One that has no memory or takes too long as the node boots, and no directory changes afterwards."""
    versions = """echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0"]}'"""
    node.plugin("main", VERSION=f"[ -e {node.root}/well ] || exit 1; {versions}")
    node.configure("main")
    async with running(node.network()) as network:
        status = network.status()
        assert not status.ready
        assert "CNI plugin main: VERSION" in status.message
        (node.root / "well").touch()
        await until(lambda: network.status().ready)


async def test_changes_are_noticed_where_inotify_has_nothing_left(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("triptych_runtime.network._watch.Inotify", exhausted)
    monkeypatch.setattr("triptych_runtime.network._watch._BLIND_SECONDS", 0.05)
    node.plugin("main")
    async with running(node.network()) as network:
        assert not network.status().ready
        node.configure("main")
        await until(lambda: network.status().ready)


async def test_pod_cidr_reaches_plugins_and_survives_a_restart(node: Node) -> None:
    node.plugin("main")
    node.configure({"type": "main", "capabilities": {"ipRanges": True}})
    async with running(node.network()) as network:
        await network.set_pod_cidr("10.9.0.0/24,fd00::/64")
        await network.set_pod_cidr("")
    async with running(node.network()) as network:
        await network.setup(pod())
    ranges = [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00::/64"}]]
    assert node.calls[0]["conf"]["runtimeConfig"]["ipRanges"] == ranges


async def test_template_waits_for_the_pod_cidr_and_yields_to_a_file(node: Node) -> None:
    node.plugin("main")
    template = node.root / "template.conflist"
    document = {"cniVersion": "1.0.0", "name": "t", "plugins": [{"type": "main", "r": "${POD_CIDR_RANGES}"}]}
    template.write_text(json.dumps(document))
    async with running(node.network(conf_template=str(template))) as network:
        assert "waits for the pod CIDR" in network.status().message
        await network.set_pod_cidr("10.9.0.0/24")
        assert network.status().networks == (("t", str(template)),)
        await network.setup(pod())
        assert node.calls[0]["conf"]["r"] == [[{"subnet": "10.9.0.0/24"}]]
        node.configure("main")
        await until(lambda: network.status().networks[0][0] == "net")


async def test_status_of_plugins(node: Node) -> None:
    node.plugin("main", STATUS='echo \'{"code":50,"msg":"agent is down"}\'; exit 1')
    node.configure("main", cniVersion="1.1.0")
    async with running(node.network()) as network:
        await until(lambda: not network.status().ready)
        assert (
            "network net: CNI plugin main: STATUS: agent is down (CNI error 50)" in network.status().message
        )
        # Informational: a pod is tried all the same.
        await network.setup(pod())


async def test_gc_detaches_what_is_gone_and_tells_what_is_valid(node: Node) -> None:
    node.plugin("main")
    node.plugin("second", GC="exit 1")
    node.configure("main", "second", cniVersion="1.1.0")
    other = "b" * 64
    async with running(node.network()) as network:
        await network.setup(pod())
        await network.setup(pod(other))
        await network.gc([other])
        assert network.attached() == {other}
    collected = [call for call in node.calls if call["command"] == "GC"]
    assert [call["plugin"] for call in collected] == ["main", "second"]
    assert collected[0]["conf"]["cni.dev/valid-attachments"] == [{"containerID": other, "ifname": "eth0"}]


async def test_gc_can_be_forbidden_and_needs_1_1(node: Node) -> None:
    node.plugin("main")
    for extra in ({"cniVersion": "1.1.0", "disableGC": True}, {"cniVersion": "1.0.0"}):
        node.configure("main", **extra)
        async with running(node.network()) as network:
            await network.gc([])
    assert [call for call in node.calls if call["command"] == "GC"] == []


async def test_gc_waits_for_pods_and_pods_for_gc(node: Node) -> None:
    node.plugin("main", ADD="sleep 0.3; " + REPLY, GC="sleep 0.2")
    node.configure("main", cniVersion="1.1.0")
    async with running(node.network()) as network:
        adding = asyncio.ensure_future(network.setup(pod()))
        await until(lambda: "ADD main" in node.sequence)
        collecting = asyncio.ensure_future(network.gc([SANDBOX]))
        await asyncio.sleep(0.05)
        later = asyncio.ensure_future(network.setup(pod("b" * 64)))
        await asyncio.gather(adding, collecting, later)
    order = [entry for entry in node.sequence if entry != "STATUS main"]
    assert order == ["ADD main", "GC main", "ADD main"]
    valid = next(c for c in node.calls if c["command"] == "GC")["conf"]["cni.dev/valid-attachments"]
    assert [entry["containerID"] for entry in valid] == [SANDBOX]


async def test_check_of_an_unknown_pod(node: Node) -> None:
    async with running(node.network()) as network:
        with pytest.raises(AttachmentUnknown):
            await network.check(SANDBOX)


async def test_no_more_plugins_at_once_than_allowed(node: Node) -> None:
    node.plugin("main", ADD="echo start >> $here/../t; sleep 0.1; echo end >> $here/../t; " + REPLY)
    node.configure("main")
    async with running(node.network(parallel=2)) as network:
        await asyncio.gather(*(network.setup(pod(f"{index:064x}")) for index in range(6)))
    inside = most = 0
    for line in (node.root / "t").read_text().split():
        inside += 1 if line == "start" else -1
        most = max(most, inside)
    assert most == 2
