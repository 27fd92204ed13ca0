"""The doctor, against hosts made of files and against this one."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from triptych_cli.__main__ import cli
from triptych_cli.context import DaemonName
from triptych_cli.doctor import cgroups, configured, daemons, disk, kernel, network, programs
from triptych_cli.doctor.command import CHECKS
from triptych_cli.doctor.model import Finding, Host, State

ALL_CAPABILITIES = "CapEff:\t000001ffffffffff"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host made of files below `host.root`."""
    sockets = {name: str(tmp_path / f"{name.value}.sock") for name in DaemonName}
    return Host(sockets, {}, tmp_path)


def put(host: Host, name: str, text: str = "", mode: int = 0o644) -> Path:
    path = host.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def found(findings: list[Finding], subject: str) -> Finding:
    (finding,) = [f for f in findings if f.subject == subject]
    assert finding.state in (State.OK, State.INFO) or finding.remedy
    return finding


def good_kernel(host: Host) -> None:
    put(host, "/proc/sys/kernel/osrelease", "6.12.1-amd64\n")
    put(host, "/proc/filesystems", "nodev\tsysfs\nnodev\toverlay\n")
    for name in ("net", "ipc", "uts", "pid", "mnt", "cgroup", "user"):
        put(host, f"/proc/self/ns/{name}")
    put(host, "/proc/sys/user/max_user_namespaces", "1000")
    put(host, "/proc/sys/kernel/seccomp/actions_avail", "kill errno")
    put(host, "/proc/sys/net/ipv4/ip_forward", "1")
    put(host, "/proc/self/status", ALL_CAPABILITIES)


def test_a_good_kernel(host: Host) -> None:
    good_kernel(host)
    findings = list(kernel.check(host))
    assert {f.state for f in findings} <= {State.OK, State.INFO}


@pytest.mark.parametrize(
    ("file", "text", "subject", "state", "remedy"),
    [
        ("/proc/sys/kernel/osrelease", "4.19.0", "kernel", State.ERROR, "upgrade the kernel"),
        ("/proc/sys/kernel/osrelease", "5.15.0", "kernel", State.WARNING, "5.19"),
        ("/proc/filesystems", "ext4", "overlayfs", State.ERROR, "CONFIG_OVERLAY_FS"),
        ("/proc/sys/user/max_user_namespaces", "0", "namespaces", State.WARNING, "max_user_namespaces"),
        ("/proc/sys/kernel/seccomp/actions_avail", "", "seccomp", State.WARNING, "SECCOMP"),
        ("/proc/sys/net/ipv4/ip_forward", "0", "ip_forward", State.WARNING, "net.ipv4.ip_forward=1"),
        (
            "/proc/sys/net/bridge/bridge-nf-call-iptables",
            "0",
            "bridge-nf-call-iptables",
            State.WARNING,
            "=1",
        ),
        ("/proc/sys/fs/inotify/max_user_instances", "128", "inotify", State.WARNING, "8192"),
        ("/proc/self/status", "CapEff:\t000001fffeffffff", "capabilities", State.WARNING, "such scores"),
        ("/proc/self/status", "CapEff:\t0000000000000000", "capabilities", State.ERROR, "root"),
    ],
)
def test_each_lack_of_a_kernel_has_its_remedy(
    host: Host, file: str, text: str, subject: str, state: State, remedy: str
) -> None:
    good_kernel(host)
    put(host, file, text)
    finding = found(list(kernel.check(host)), subject)
    assert finding.state is state
    assert remedy in finding.remedy


def test_a_missing_overlay_module_is_loaded_by_modprobe(host: Host) -> None:
    good_kernel(host)
    put(host, "/proc/filesystems", "ext4")
    host.path("/lib/modules/6.12.1-amd64/kernel/fs/overlayfs").mkdir(parents=True)
    assert found(list(kernel.check(host)), "overlayfs").remedy == "modprobe overlay"


def test_cgroup_modes(host: Host) -> None:
    assert cgroups.mode(host) is cgroups.Mode.NONE
    assert next(iter(cgroups.check(host))).state is State.ERROR
    for name in ("memory", "cpu,cpuacct", "pids", "blkio", "cpuset"):
        host.path(f"/sys/fs/cgroup/{name}").mkdir(parents=True)
    assert cgroups.mode(host) is cgroups.Mode.LEGACY
    put(host, "/sys/fs/cgroup/unified/cgroup.procs")
    put(host, "/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb")
    findings = list(cgroups.check(host))
    assert cgroups.mode(host) is cgroups.Mode.HYBRID
    assert "mount -t cgroup -o hugetlb" in found(findings, "hybrid hierarchy").remedy
    assert found(findings, "controllers").detail == "cpu, cpuset, io, memory, pids"
    put(host, "/sys/fs/cgroup/cgroup.controllers", "cpu memory pids cpuset io")
    assert found(list(cgroups.check(host)), "cgroup mode") == Finding(State.OK, "cgroup mode", "v2")


@pytest.mark.parametrize(
    ("setting", "systemd", "state"),
    [
        ("auto", True, State.OK),
        ("auto", False, State.OK),
        ("systemd", False, State.ERROR),
        ("cgroupfs", True, State.WARNING),
    ],
)
def test_the_cgroup_driver_must_fit_the_init(host: Host, setting: str, systemd: bool, state: State) -> None:
    put(host, "/sys/fs/cgroup/cgroup.controllers", "cpu memory pids cpuset")
    if systemd:
        host.path("/run/systemd/system").mkdir(parents=True)
    configured_host = Host(host.sockets, {DaemonName.RUNTIME: {"cgroup_driver": setting}}, host.root)
    assert found(list(cgroups.check(configured_host)), "cgroup driver").state is state


def script(host: Host, name: str, text: str) -> None:
    put(host, name, f"#!/bin/sh\n{text}\n", 0o755)


def test_programs(host: Host) -> None:
    findings = list(programs.check(host))
    assert found(findings, "OCI runtime").state is State.ERROR
    assert found(findings, "conmon").remedy == "apt-get install conmon"
    script(host, "/usr/bin/crun", "echo crun version 1.14; echo more")
    script(host, "/usr/sbin/runc", "exit 1")
    script(host, "/usr/bin/conmon", "echo conmon version 2.0.9")
    put(host, "/usr/share/containers/seccomp.json", "{}")
    findings = list(programs.check(host))
    assert found(findings, "crun").detail.startswith("crun version 1.14 at ")
    assert "does not start" in found(findings, "runc").detail
    assert found(findings, "conmon").detail == "conmon version 2.0.9 is older than 2.1"
    assert not [f for f in findings if f.subject == "OCI runtime"]


def test_apparmor_without_its_parser(host: Host) -> None:
    put(host, "/sys/module/apparmor/parameters/enabled", "Y\n")
    assert found(list(programs.check(host)), "apparmor").remedy == "apt-get install apparmor"


def test_the_pod_network(host: Host) -> None:
    findings = list(network.check(host))
    assert found(findings, "CNI configuration").state is State.ERROR
    assert found(findings, "CNI plugins").state is State.ERROR

    plugins = [{"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "portmap"}]
    put(host, "/etc/cni/net.d/10-a.conflist", json.dumps({"name": "pods", "plugins": plugins}))
    put(host, "/etc/cni/net.d/20-b.conf", json.dumps({"type": "other"}))
    script(host, "/opt/cni/bin/bridge", "")
    findings = list(network.check(host))
    assert "names host-local, portmap, not in" in found(findings, "CNI plugins").detail
    script(host, "/opt/cni/bin/host-local", "")
    script(host, "/usr/lib/cni/portmap", "")
    script(host, "/usr/sbin/iptables", "")
    findings = list(network.check(host))
    assert found(findings, "CNI plugins").detail == "bridge, portmap, host-local"
    assert any(f.state is State.INFO and "1 more" in f.detail for f in findings)

    put(host, "/etc/cni/net.d/00-broken.conflist", "{")
    assert found(list(network.check(host)), "CNI configuration").remedy.startswith("correct or remove")


@pytest.mark.parametrize(
    ("nft", "state", "detail", "remedy"),
    [
        ("", State.WARNING, "nft is missing", "apt-get install nftables"),
        ('[ "$*" = "list table inet triptych_nat" ]', State.OK, "is loaded", ""),
        (
            "echo Error: No such file or directory >&2; echo list table >&2; exit 1",
            State.WARNING,
            "pods reach nothing beyond this node",
            "systemctl restart triptych-nat.service",
        ),
        (
            "echo Operation not permitted >&2; exit 1",
            State.WARNING,
            "Operation not permitted",
            "run as root",
        ),
    ],
)
def test_the_masquerade_of_the_default_network(
    host: Host, nft: str, state: State, detail: str, remedy: str
) -> None:
    bridge: dict[str, object] = {"type": "bridge", "ipMasq": False}
    put(host, "/etc/cni/net.d/10-triptych.conflist", json.dumps({"name": "triptych", "plugins": [bridge]}))
    if nft:
        script(host, "/usr/sbin/nft", nft)
    finding = found(list(network.check(host)), "masquerade")
    assert finding.state is state
    assert detail in finding.detail and remedy in finding.remedy

    bridge["ipMasq"] = True
    put(host, "/etc/cni/net.d/10-triptych.conflist", json.dumps({"name": "triptych", "plugins": [bridge]}))
    assert "masquerade" not in {finding.subject for finding in network.check(host)}


def test_the_masquerade_of_another_network_is_its_own(host: Host) -> None:
    put(host, "/etc/cni/net.d/10-calico.conflist", json.dumps({"plugins": [{"type": "calico"}]}))
    assert "masquerade" not in {finding.subject for finding in network.check(host)}


def test_disks(host: Host) -> None:
    host.path("/var/lib").mkdir(parents=True)
    host.path("/run").mkdir()
    put(host, "/proc/self/mountinfo", "1 0 0:999 / / rw - nfs4 server:/ rw")
    findings = list(disk.check(host))
    assert any("cannot carry overlays" in f.detail and f.state is State.ERROR for f in findings)
    assert found(findings, "state").state is State.WARNING
    device = os.stat(host.root).st_dev
    put(host, "/proc/self/mountinfo", f"1 0 {os.major(device)}:{os.minor(device)} / / rw - tmpfs x rw")
    findings = list(disk.check(host))
    assert found(findings, "state").state is State.OK
    assert any("images are lost at a reboot" in f.detail for f in findings)


def test_sockets(host: Host) -> None:
    path = host.sockets[DaemonName.IMAGE]
    findings = list(daemons.check_sockets(host))
    assert [f.remedy for f in findings] == [f"systemctl start {name.unit}" for name in DaemonName]
    Path(path).write_text("")
    assert "is not a socket" in found(list(daemons.check_sockets(host)), "triptych-image").detail
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    os.chmod(path, 0o666)
    findings = [f for f in daemons.check_sockets(host) if f.subject == "triptych-image"]
    assert "mode 0666" in findings[0].detail
    assert "does not answer" in findings[1].detail


def test_configured_paths_are_looked_at(host: Host, tmp_path: Path) -> None:
    put(host, "/etc/triptych/runtime.toml", '[network]\nconf_dirs = ["/a"]\nbin_dirs = ["/b"]\n')
    put(host, "/etc/triptych/runtime.toml.d/x.toml", '[network]\nconf_dirs = ["/c"]\n')
    put(host, "/etc/triptych/image.toml", "not toml")
    settings = configured.read(tmp_path / "etc/triptych")
    assert settings[DaemonName.RUNTIME] == {"network": {"conf_dirs": ["/c"], "bin_dirs": ["/b"]}}
    assert settings[DaemonName.IMAGE] == {}
    finding = found(list(network.check(Host({}, settings, tmp_path)))[:1], "CNI configuration")
    assert "none in /c" in finding.detail


def test_the_daemons_are_asked_about_the_files_of_that_directory(host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "etc"
    (directory / "runtime.toml.d").mkdir(parents=True)
    (directory / "runtime.toml").write_text("")
    (directory / "runtime.toml.d/x.toml").write_text("nonsense = 1\n")
    (directory / "image.toml").write_text("")
    findings = list(daemons.check_configuration(replace(host, config_dir=directory)))
    runtime = found(findings, "triptych-runtime")
    assert runtime.state is State.ERROR and f"{directory}/runtime.toml.d/x.toml" in runtime.detail
    image = found(findings, "triptych-image")
    assert image.state is State.OK and f"{directory}/image.toml" in image.detail
    streaming = found(findings, "triptych-streaming")
    assert streaming.state is State.WARNING and streaming.detail == f"no {directory}/streaming.toml"


def test_the_command_on_this_host() -> None:
    result = CliRunner().invoke(cli, ["-o", "json", "doctor", "kernel", "cgroups", "disk"], obj=None)
    document = json.loads(result.output)
    assert [entry["check"] for entry in document] == ["kernel", "cgroups", "disk"]
    assert all(f["remedy"] for entry in document for f in entry["findings"] if f["state"] == "error")


def test_the_exit_status_tells_of_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runtime.toml").write_text(f'[network]\nconf_dirs = ["{tmp_path}"]\n')
    run: Callable[..., object] = cli.main
    status = run(["doctor", "--config-dir", str(tmp_path), "network"], standalone_mode=False)
    assert status == 1
    assert {check.name for check in CHECKS} >= {"kernel", "sockets"}
