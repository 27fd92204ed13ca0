"""The network with the real CNI plugins, in a network namespace that stands for the node's."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from triptych_dev.patience import PATIENCE

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[3]
PLUGINS = ("/opt/cni/bin", "/usr/lib/cni")


def missing() -> str:
    """Why these tests cannot run here; "" when they can."""
    if not any(Path(directory, "bridge").exists() for directory in PLUGINS):
        return "needs CNI plugins: apt install containernetworking-plugins"
    for program, package in (
        ("nft", "nftables"),
        ("iptables", "iptables"),
        ("ip", "iproute2"),
        ("busybox", "busybox-static"),
    ):
        if shutil.which(program) is None:
            return f"needs {program}: apt install {package}"
    return ""


needs_plugins = pytest.mark.skipif(bool(missing()), reason=missing() or "complete")

# Runs a scenario as a program of its own, since the plugins must run in another network namespace than
# pytest: `node` is a Network on an empty state directory, `pod(...)` makes and attaches a pod.
PRELUDE = """
import asyncio, json, subprocess, sys
from pathlib import Path
from triptych_runtime.namespaces import IdMapping, NamespaceOptions, PodNamespaces, UserMappings
from triptych_runtime.network import Network, NetworkSettings, PodAttachment, PodDns, PortMapping
from triptych_runtime.network.errors import TeardownFailed
from triptych_dev.patience import PATIENCE

root = Path(sys.argv[1])

def sh(*argv, netns=None, check=True):
    enter = ["nsenter", f"--net={netns}"] if netns else []
    done = subprocess.run([*enter, *argv], capture_output=True, text=True, timeout=20 * PATIENCE)
    if check and done.returncode:
        raise SystemExit(f"{argv}: {done.stdout} {done.stderr}")
    return done.stdout

class Done(Exception):
    pass

async def attach(spaces, network, number, users=None, **extra):
    name = f"{number:064x}"
    pinned = await spaces.create(name, NamespaceOptions(hostname="pod", users=users))
    attachment = PodAttachment(
        sandbox_id=name, netns=pinned.net, name="web", namespace="default", uid="u", **extra
    )
    return pinned.net, await network.setup(attachment)

async def detach(spaces, network, number):
    name = f"{number:064x}"
    await network.teardown(name, spaces.get(name).net)
    await spaces.destroy(name)

async def main():
    spaces = PodNamespaces(root)
    await spaces.start()
    network = Network(NetworkSettings(conf_dirs=(str(root / "conf"),)), root)
    try:
        async with asyncio.TaskGroup() as tasks:
            await network.start(tasks)
            print(json.dumps(await scenario(spaces, network)))
            raise Done
    except* Done:
        pass
"""


async def play(
    root: Path,
    scenario: str,
    conflist: dict[str, Any] | None = None,
    *,
    helpers: str = "",
    fault: str = "",
) -> dict[str, Any]:
    """Run a scenario in new network and mount namespaces; returns what it returned.

    :param fault: the fault point where the program is to be killed; it then returns nothing.
    """
    if conflist is None:
        conflist = json.loads((REPOSITORY / "deploy/cni/10-triptych.conflist").read_text())
    conflist["plugins"][0].get("ipam", {})["dataDir"] = str(root / "ipam")
    (root / "conf").mkdir(exist_ok=True)
    (root / "conf/10.conflist").write_text(json.dumps(conflist))
    program = root / "scenario.py"
    parts = (PRELUDE, f"repository = {str(REPOSITORY)!r}", helpers, textwrap.dedent(scenario))
    program.write_text("\n".join((*parts, "asyncio.run(main())\n")))
    prepare = 'ip link set lo up; sysctl -q -w net.ipv4.ip_forward=1; exec "$@"'
    argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", prepare, "sh"]
    argv += [sys.executable, str(program), str(root)]
    environment = os.environ | {"XTABLES_LOCKFILE": str(root / "xtables.lock"), "TRIPTYCH_FAULT": fault}
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    out, err = await asyncio.wait_for(child.communicate(), 60 * PATIENCE)
    if fault:
        assert child.returncode == -signal.SIGKILL, (out + err).decode()
        return {}
    assert child.returncode == 0, (out + err).decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


@needs_plugins
async def test_default_network(tmp_path: Path) -> None:
    scenario = """
    async def scenario(spaces, network):
        one, result = await attach(spaces, network, 1)
        two, other = await attach(spaces, network, 2)
        await network.check(f"{1:064x}")
        address = sh("ip", "-brief", "address", "show", "eth0", netns=one).split()
        ping = sh("busybox", "ping", "-c1", "-W2", other.ips[0], netns=one)
        rules = sh("nft", "list", "ruleset")
        leases = sorted(p.name for p in (root / "ipam" / "triptych").iterdir() if p.name[0].isdigit())
        await detach(spaces, network, 1)
        await detach(spaces, network, 2)
        left = sorted(p.name for p in (root / "ipam" / "triptych").iterdir() if p.name[0].isdigit())
        links = [l["ifname"] for l in json.loads(sh("ip", "-json", "link"))]
        return {"ips": result.ips, "address": address[2], "state": address[1], "leases": leases,
                "left": left, "links": links, "rules": rules, "ping": "1 packets received" in ping,
                "interfaces": [i.name for i in result.interfaces if i.sandbox],
                "records": len(list((root / "network").glob("*.json")))}
    """
    answer = await play(tmp_path, scenario)
    assert answer["ips"] == ["10.90.0.2"]
    assert (answer["address"], answer["state"]) == ("10.90.0.2/16", "UP")
    assert answer["interfaces"] == ["eth0"]
    assert answer["ping"]
    assert answer["leases"] == ["10.90.0.2", "10.90.0.3"]
    # Nothing was asked of the firewall for pods without host ports, and nothing stays.
    assert answer["rules"] == ""
    assert (answer["left"], answer["records"]) == ([], 0)
    assert sorted(answer["links"]) == ["lo", "triptych0"]


OUTSIDE = """
# A machine outside: it has no route to the pods.
async def outside(spaces):
    pinned = await spaces.create("f" * 64, NamespaceOptions(hostname="outside"))
    sh("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", str(pinned.net))
    sh("ip", "address", "add", "192.0.2.1/24", "dev", "up0")
    sh("ip", "link", "set", "up0", "up")
    sh("ip", "address", "add", "192.0.2.2/24", "dev", "eth0", netns=pinned.net)
    sh("ip", "link", "set", "eth0", "up", netns=pinned.net)
    return pinned.net

SERVER = '''
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    client, peer = server.accept()
    client.sendall(peer[0].encode())
    client.close()
'''
CLIENT = '''
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3) as server:
    print(server.recv(100).decode())
'''

def serve(netns, port):
    argv = ["nsenter", f"--net={netns}", sys.executable, "-c", SERVER, str(port)]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\\n"
    return server

def ask(address, port, netns=None, check=True):
    return sh(sys.executable, "-c", CLIENT, address, str(port), netns=netns, check=check).strip()
"""


@needs_plugins
async def test_the_way_out_and_host_ports(tmp_path: Path) -> None:
    scenario = """
    async def scenario(spaces, network):
        sh("nft", "-f", f"{repository}/deploy/cni/triptych-nat.nft")
        far = await outside(spaces)
        plain, _ = await attach(spaces, network, 1)
        ports = (PortMapping(80, 18080), PortMapping(81, 18081, "tcp", "192.0.2.1"), PortMapping(82, 0))
        web, found = await attach(spaces, network, 2, port_mappings=ports)
        servers = [serve(far, 7), serve(web, 80), serve(web, 81)]
        try:
            answer = {
                "seen by the outside": ask("192.0.2.2", 7, netns=plain),
                "pod to pod": ask(found.ips[0], 80, netns=plain),
                "outside to host port": ask("192.0.2.1", 18080, netns=far),
                "outside to host port of an address": ask("192.0.2.1", 18081, netns=far),
                "pod to host port": ask("192.0.2.1", 18080, netns=plain),
                "pod to its own host port": ask("192.0.2.1", 18080, netns=web),
                "host to its own port": ask("127.0.0.1", 18080),
            }
            await detach(spaces, network, 2)
            answer["after"] = ask("192.0.2.1", 18080, netns=far, check=False)
        finally:
            for server in servers:
                server.kill()
                server.wait()
        await detach(spaces, network, 1)
        answer["rules"] = [line for line in sh("nft", "list", "ruleset").splitlines() if "18080" in line]
        return answer
    """
    answer = await play(tmp_path, scenario, helpers=OUTSIDE)
    assert answer["seen by the outside"] == "192.0.2.1"
    assert answer["pod to pod"] == "10.90.0.2"
    assert answer["outside to host port"] == "192.0.2.2"
    assert answer["outside to host port of an address"] == "192.0.2.2"
    assert answer["pod to host port"] != ""
    assert answer["pod to its own host port"] != ""
    assert answer["host to its own port"] != ""
    assert (answer["after"], answer["rules"]) == ("", [])


@needs_plugins
async def test_dual_stack_and_the_pod_cidr(tmp_path: Path) -> None:
    conflist = json.loads((REPOSITORY / "deploy/cni/examples/dual-stack.conflist").read_text())
    conflist["plugins"][0]["capabilities"]["ipRanges"] = True
    del conflist["plugins"][0]["ipam"]["ranges"]
    scenario = """
    async def scenario(spaces, network):
        await network.set_pod_cidr("10.91.7.0/24,fd91::/64")
        netns, result = await attach(spaces, network, 1)
        addresses = sh("ip", "-brief", "address", "show", "eth0", netns=netns).split()
        await detach(spaces, network, 1)
        return {"ips": result.ips, "addresses": addresses}
    """
    answer = await play(tmp_path, scenario, conflist)
    assert answer["ips"] == ["10.91.7.2", "fd91::2"]
    assert {"10.91.7.2/24", "fd91::2/64"} <= set(answer["addresses"])


@needs_plugins
async def test_bandwidth_of_annotations(tmp_path: Path) -> None:
    scenario = """
    async def scenario(spaces, network):
        limits = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "20M"}
        await attach(spaces, network, 1, annotations=limits)
        limited = sh("tc", "qdisc", "show")
        await detach(spaces, network, 1)
        return {"limited": limited, "after": sh("tc", "qdisc", "show")}
    """
    if shutil.which("tc") is None or not _has_qdisc():
        pytest.skip("needs the kernel's tbf and ifb (package linux-image) and tc (package iproute2)")
    answer = await play(tmp_path, scenario)
    assert "rate 10Mbit" in answer["limited"]
    assert "rate 20Mbit" in answer["limited"]
    assert "tbf" not in answer["after"]


def _has_qdisc() -> bool:
    """Whether this kernel has what the bandwidth plugin needs."""
    script = "ip link add ifb9 type ifb && tc qdisc add dev ifb9 root tbf rate 1mbit burst 10kb latency 10ms"
    return subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True).returncode == 0


@needs_plugins
async def test_pod_with_a_user_namespace(tmp_path: Path) -> None:
    scenario = """
    async def scenario(spaces, network):
        ids = (IdMapping(0, 100000, 65536),)
        netns, result = await attach(spaces, network, 1, users=UserMappings(ids, ids))
        addresses = sh("ip", "-brief", "address", "show", "eth0", netns=netns).split()
        await detach(spaces, network, 1)
        return {"ips": result.ips, "addresses": addresses}
    """
    answer = await play(tmp_path, scenario)
    assert answer["ips"] == ["10.90.0.2"]
    assert "10.90.0.2/16" in answer["addresses"]


@needs_plugins
async def test_lease_is_given_back_though_the_namespace_is_gone(tmp_path: Path) -> None:
    scenario = """
    async def scenario(spaces, network):
        netns, _ = await attach(spaces, network, 1)
        await spaces.destroy(f"{1:064x}")
        await network.gc([])
        leases = [p.name for p in (root / "ipam" / "triptych").iterdir() if p.name[0].isdigit()]
        return {"leases": leases, "attached": sorted(network.attached())}
    """
    assert await play(tmp_path, scenario) == {"leases": [], "attached": []}


@needs_plugins
async def test_a_failing_chain_gives_the_lease_back(tmp_path: Path) -> None:
    conflist = json.loads((REPOSITORY / "deploy/cni/10-triptych.conflist").read_text())
    conflist["plugins"].append({"type": "tuning", "sysctl": {"net.ipv4.no_such": "1"}})
    scenario = """
    async def scenario(spaces, network):
        try:
            await attach(spaces, network, 1)
            error = ""
        except Exception as failure:
            error = str(failure)
        leases = [p.name for p in (root / "ipam" / "triptych").iterdir() if p.name[0].isdigit()]
        links = [l["ifname"] for l in json.loads(sh("ip", "-json", "link"))]
        await spaces.destroy(f"{1:064x}")
        return {"error": error, "leases": leases, "links": sorted(links)}
    """
    answer = await play(tmp_path, scenario, conflist)
    assert answer["error"].startswith("CNI plugin tuning: ADD: ")
    assert (answer["leases"], answer["links"]) == ([], ["lo", "triptych0"])


@needs_plugins
@pytest.mark.parametrize(
    "point", ["network.recorded", "network.added", "network.deleting", "network.deleted"]
)
async def test_killed_at_every_step_and_started_again(tmp_path: Path, point: str) -> None:
    """The second start finds the pod's namespaces gone, as after a reboot, and gives its address back."""
    forth_and_back = """
    async def scenario(spaces, network):
        await attach(spaces, network, 1)
        await detach(spaces, network, 1)
    """
    await play(tmp_path, forth_and_back, fault=point)
    assert len(list((tmp_path / "network").glob("*.json"))) == 1
    assert (tmp_path / "ipam/triptych/10.90.0.2").exists() == (
        point in ("network.added", "network.deleting")
    )
    shutil.rmtree(tmp_path / "ns")
    recover = """
    async def scenario(spaces, network):
        await network.gc([])
        leases = [p.name for p in (root / "ipam/triptych").glob("[0-9]*")]
        return {"leases": leases, "attached": sorted(network.attached())}
    """
    assert await play(tmp_path, recover) == {"leases": [], "attached": []}
    assert list((tmp_path / "network").glob("*.json")) == []


@needs_plugins
@pytest.mark.slow
async def test_110_pods_at_once(tmp_path: Path) -> None:
    scenario = """
    async def scenario(spaces, network):
        results = await asyncio.gather(*(attach(spaces, network, n) for n in range(110)))
        ips = [result.ips[0] for _, result in results]
        await asyncio.gather(*(detach(spaces, network, n) for n in range(110)))
        leases = [p.name for p in (root / "ipam" / "triptych").iterdir() if p.name[0].isdigit()]
        return {"ips": len(set(ips)), "leases": leases, "attached": len(network.attached())}
    """
    assert await play(tmp_path, scenario) == {"ips": 110, "leases": [], "attached": 0}
