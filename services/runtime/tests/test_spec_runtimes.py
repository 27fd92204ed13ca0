"""Built specs in real containers: crun and runc on a busybox root, looked at from inside."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from nri.v1alpha1 import nri_pb2
from runtime.v1 import api_pb2
from triptych_dev.patience import PATIENCE
from triptych_linux import mounts
from triptych_oci import ContainerConfig
from triptych_runtime.nri.adjust import adjust_spec
from triptych_runtime.spec import (
    ContainerInputs,
    ContainerSpec,
    HandlerFeatures,
    HostFacts,
    NamespacePaths,
    RootfsView,
    SandboxContext,
    build_container_spec,
    build_exec_process,
    encode,
)
from triptych_runtime.spec.mount_options import attributes
from triptych_runtime.spec.volumes import populate

pytestmark = pytest.mark.integration

APPLETS = "sh cat id env od ls mount umount grep head touch echo sleep test stat unshare chmod mkdir".split()


@dataclass
class Box:
    """One container to be: change `config`, `sandbox` and `image`, then `run`."""

    runtime: str
    root: Path
    host: HostFacts
    handler: HandlerFeatures
    name: str = field(default_factory=lambda: f"spec-{uuid.uuid4().hex[:12]}")
    image: ContainerConfig = field(default_factory=ContainerConfig)
    config: api_pb2.ContainerConfig = field(default_factory=api_pb2.ContainerConfig)
    sandbox: api_pb2.PodSandboxConfig = field(default_factory=api_pb2.PodSandboxConfig)
    namespaces: NamespacePaths = field(default_factory=NamespacePaths)
    more: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    adjustment: nri_pb2.ContainerAdjustment = field(default_factory=nri_pb2.ContainerAdjustment)

    @property
    def security(self) -> api_pb2.LinuxContainerSecurityContext:
        return self.config.linux.security_context

    def build(self) -> ContainerSpec:
        inputs = ContainerInputs(
            container_id=self.name,
            config=self.config,
            image=self.image,
            rootfs=self.root / "rootfs",
            files=RootfsView([self.root / "rootfs"]),
            bundle=self.root,
            volumes=self.root / "volumes",
            cgroups_path=f"/triptych-spec/{self.name}",
            **self.more,
        )
        context = SandboxContext(
            sandbox_id="pod", config=self.sandbox, namespaces=self.namespaces, **self.context
        )
        spec = build_container_spec(self.host, self.handler, context, inputs)
        return adjust_spec(spec, self.adjustment, self.host, self.handler, ())

    def prepare(self) -> ContainerSpec:
        spec = self.build()
        for directory in spec.directories:
            directory.mkdir(parents=True, mode=0o755)
        for file in spec.files:
            file.path.write_bytes(file.content)
            file.path.chmod(file.mode)
        for volume in spec.anonymous_volumes:
            populate(self.root / "rootfs", volume)
        for mount in spec.prepared:
            mount.target.mkdir(parents=True)
            mounts.bind_with(mount.source, mount.target, attributes(mount.options), mount.user_namespace)
        (self.root / "config.json").write_bytes(encode(spec.document))
        return spec

    def run(self, script: str) -> str:
        self.config.command[:] = ["sh", "-c", script]
        return self.run_command().decode(errors="surrogateescape")

    def run_command(self, status: int = 0) -> bytes:
        self.prepare()
        command = [self.runtime, "run", "--bundle", str(self.root), self.name]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60 * PATIENCE)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(params=["crun", "runc"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    runtime = shutil.which(request.param)
    busybox = shutil.which("busybox")
    if runtime is None or busybox is None or os.geteuid() != 0:
        pytest.skip(f"needs root, {request.param} and busybox-static")
    root = Path("/var/tmp") / f"triptych-spec-{uuid.uuid4().hex[:12]}"
    rootfs = root / "rootfs"
    for directory in ("bin", "proc", "dev", "sys", "etc", "tmp", "data"):
        (rootfs / directory).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in APPLETS:
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:app\n")
    version = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True).stdout
    made = Box(runtime, root, HostFacts.probe(), HandlerFeatures.of_version(version))
    made.config.metadata.name = "c"
    made.sandbox.metadata.name = "p"
    made.sandbox.linux.security_context.namespace_options.network = api_pb2.NODE
    made.security.namespace_options.pid = api_pb2.CONTAINER
    try:
        yield made
    finally:
        subprocess.run([runtime, "delete", "--force", made.name], capture_output=True, timeout=60 * PATIENCE)
        mounts.umount_below(root)
        shutil.rmtree(root)
        base = Path("/sys/fs/cgroup")
        for hierarchy in (base, *base.iterdir()):
            with contextlib.suppress(OSError):
                (hierarchy / "triptych-spec").rmdir()


def _status(text: str) -> dict[str, str]:
    return {k: v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}


def test_user_of_the_image(box: Box) -> None:
    box.image = ContainerConfig(user="app", working_dir="/tmp", env=("FROM=image",))
    out = box.run("id; pwd; echo $HOME $FROM; exit 0")
    assert "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)" in out
    assert out.splitlines()[1:] == ["/tmp", "/home/app image"]


def test_strict_groups_and_fs_group(box: Box) -> None:
    box.security.run_as_user.value = 1000
    box.security.run_as_group.value = 7
    box.security.supplemental_groups.append(3000)
    box.security.supplemental_groups_policy = api_pb2.Strict
    assert "uid=1000(app) gid=7 groups=7,3000" in box.run("id")


def test_capabilities_of_a_plain_container(box: Box) -> None:
    status = _status(box.run("cat /proc/self/status"))
    assert status["CapEff"] == status["CapBnd"] == status["CapPrm"] == "00000000a80425fb"
    assert status["CapAmb"] == status["CapInh"] == "0000000000000000"
    assert status["NoNewPrivs"] == "0"
    assert status["Seccomp"] == "0"


def test_ambient_capabilities_reach_another_user(box: Box) -> None:
    box.security.run_as_user.value = 1000
    box.security.no_new_privs = True
    box.security.capabilities.drop_capabilities.append("ALL")
    box.security.capabilities.add_capabilities.append("NET_BIND_SERVICE")
    box.security.capabilities.add_ambient_capabilities.append("NET_BIND_SERVICE")
    status = _status(box.run("cat /proc/self/status"))
    assert status["CapAmb"] == status["CapEff"] == status["CapBnd"] == "0000000000000400"
    assert status["NoNewPrivs"] == "1"


def test_privileged(box: Box) -> None:
    box.security.privileged = True
    box.sandbox.linux.security_context.privileged = True
    own = _status(Path("/proc/self/status").read_text())["CapBnd"]
    out = box.run("cat /proc/self/status; ls /dev; touch /sys/kernel/x 2>&1; cat /proc/mounts")
    assert _status(out)["CapEff"] == own
    assert "fuse" in out or "kmsg" in out
    assert re.search(r"sysfs /sys sysfs rw,", out)


def test_readonly_root_masked_and_readonly_paths(box: Box) -> None:
    box.security.readonly_rootfs = True
    box.security.masked_paths[:] = ["/proc/timer_list", "/proc/scsi", "/no/such"]
    box.security.readonly_paths[:] = ["/proc/sys"]
    out = box.run(
        "touch /x 2>&1; cat /proc/timer_list | head -c 1 | od -c; touch /tmp/x 2>&1;"
        "echo 1 > /proc/sys/kernel/sysrq 2>&1; echo end"
    )
    assert out.count("Read-only file system") >= 2
    assert "end" in out


def test_environment_that_is_not_utf8(box: Box) -> None:
    box.config.command[:] = ["cat", "/proc/self/environ"]
    box.config.envs.add(key="RAW", value=b"a\xff\xfe\x80b")
    box.config.envs.add(key="TEXT", value="grün".encode())
    entries = box.run_command().split(b"\0")
    assert b"RAW=a\xff\xfe\x80b" in entries
    assert "TEXT=grün".encode() in entries
    assert b"HOSTNAME=" in b"\0".join(entries)


def test_environment_that_is_not_utf8_for_another_user(box: Box) -> None:
    box.security.run_as_user.value = 1000
    box.security.readonly_rootfs = True
    box.security.no_new_privs = True
    box.security.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    box.config.envs.add(key="RAW", value=b"\xff")
    assert "RAW=\udcff" in box.run("id; cat /proc/self/environ")


@pytest.mark.parametrize(("command", "status"), [("no-such-command", 127), ("/etc/passwd", 126)])
def test_launcher_tells_why_it_failed(box: Box, command: str, status: int) -> None:
    box.config.command[:] = [command]
    box.config.envs.add(key="RAW", value=b"\xff")
    box.run_command(status)


def test_exec_has_the_environment(box: Box) -> None:
    box.config.command[:] = ["sleep", "60"]
    box.config.envs.add(key="RAW", value=b"\xff\x01")
    spec = box.prepare()
    start = [box.runtime, "run", "--detach", "--bundle", str(box.root), box.name]
    subprocess.run(
        start, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    process = build_exec_process(spec.document["process"], ["cat", "/proc/self/environ"], tty=False)
    (box.root / "process.json").write_bytes(encode(process))
    command = [box.runtime, "exec", "--process", str(box.root / "process.json"), box.name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert b"RAW=\xff\x01" in done.stdout.split(b"\0")


def test_seccomp_runtime_default(box: Box) -> None:
    box.security.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    out = box.run(
        "cat /proc/self/status; unshare -U true 2>&1; (echo in a child); unshare -m true 2>&1; exit 0"
    )
    assert _status(out)["Seccomp"] == "2"
    assert out.count("Operation not permitted") == 2
    assert "in a child" in out


def test_seccomp_localhost_file(box: Box) -> None:
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4}]
    profile = box.root / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    box.security.seccomp.profile_type = api_pb2.SecurityProfile.Localhost
    box.security.seccomp.localhost_ref = str(profile)
    assert "Interrupted system call" in box.run("mkdir /tmp/a 2>&1; exit 0")


def test_mounts_of_the_request(box: Box) -> None:
    host = box.root / "host"
    (host / "sub").mkdir(parents=True)
    mounts.mount("tmpfs", host / "sub", "tmpfs")
    box.config.mounts.add(container_path="/ro", host_path=str(host), readonly=True)
    box.config.mounts.add(
        container_path="/rro", host_path=str(host), readonly=True, recursive_read_only=True
    )
    box.config.mounts.add(
        container_path="/made", host_path=str(box.root / "new/dir"), mount_options=["noexec", "nodev"]
    )
    out = box.run(
        "touch /ro/x 2>/dev/null || echo ro; touch /ro/sub/x && echo sub; touch /rro/sub/y || echo rro;"
        "touch /made/x && echo made; grep ' /made ' /proc/self/mountinfo"
    )
    assert out.splitlines()[:4] == ["ro", "sub", "rro", "made"]
    assert {"noexec", "nodev"} <= set(out.splitlines()[4].split()[5].split(","))
    assert (box.root / "new/dir/x").exists()


def test_volumes_of_the_image_are_filled(box: Box) -> None:
    (box.root / "rootfs/data/file").write_text("content")
    os.chown(box.root / "rootfs/data", 1000, 1001)
    box.image = ContainerConfig(volumes={"/data": {}, "/fresh": {}})
    out = box.run("cat /data/file; stat -c ' %u:%g' /data; echo x > /data/new; echo x > /fresh/new; echo ok")
    assert out == "content 1000:1001\nok\n"
    assert not (box.root / "rootfs/data/new").exists()


def test_limits(box: Box) -> None:
    limits = box.config.linux.resources
    limits.memory_limit_in_bytes = 64 << 20
    limits.cpu_shares = 512
    limits.cpu_quota, limits.cpu_period = 50_000, 100_000
    limits.cpuset_cpus = "0"
    limits.oom_score_adj = 500
    limits.hugepage_limits.add(page_size="2MB", limit=0)
    out = box.run(
        "cat /proc/self/oom_score_adj; grep Cpus_allowed_list /proc/self/status; cat /proc/self/cgroup"
    )
    assert out.splitlines()[0] == "500"
    assert out.splitlines()[1].split() == ["Cpus_allowed_list:", "0"]


def test_oom_score_below_the_daemons_is_clamped(box: Box) -> None:
    box.config.linux.resources.oom_score_adj = -999
    own = int(Path("/proc/self/oom_score_adj").read_text())
    expected = -999 if box.host.may_lower_oom else own
    assert box.run("cat /proc/self/oom_score_adj").strip() == str(expected)


def test_devices(box: Box) -> None:
    source = next((path for path in ("/dev/fuse", "/dev/kvm", "/dev/kmsg") if Path(path).exists()), None)
    if source is None:
        pytest.skip("this host has no device to lend")
    box.config.devices.add(host_path=source, container_path="/dev/mine", permissions="r")
    out = box.run("stat -c '%F' /dev/mine; (: </dev/mine) && echo r; (: >/dev/mine) 2>/dev/null || echo no")
    assert out.splitlines() == ["character special file", "r", "no"]


def test_cdi_device(box: Box) -> None:
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/net",
        "devices": [
            {
                "name": "one",
                "containerEdits": {
                    "env": ["CDI=yes"],
                    "deviceNodes": [{"path": "/dev/cdi", "hostPath": "/dev/null"}],
                    "mounts": [{"hostPath": str(box.root), "containerPath": "/cdi", "options": ["ro"]}],
                    "additionalGids": [4321],
                },
            }
        ],
    }
    (box.root / "cdi").mkdir()
    (box.root / "cdi/vendor.json").write_text(json.dumps(spec))
    box.more["cdi_dirs"] = (box.root / "cdi",)
    box.config.CDI_devices.add(name="vendor.com/net=one")
    out = box.run("echo $CDI; echo x > /dev/cdi && echo dev; ls /cdi/config.json; touch /cdi/x 2>&1; id -G")
    assert out.splitlines()[:3] == ["yes", "dev", "/cdi/config.json"]
    assert "Read-only" in out
    assert "4321" in out.splitlines()[-1].split()


def test_adjusted_by_plugins_of_the_node(box: Box) -> None:
    box.config.envs.add(key="RAW", value=b"\xff")
    box.config.envs.add(key="GONE", value=b"\xfe")
    wanted = box.adjustment
    wanted.env.add(key="-GONE")
    wanted.env.add(key="NEW", value="new")
    wanted.mounts.add(destination="/data/below", type="tmpfs", source="tmpfs", options=["size=64k"])
    wanted.mounts.add(destination="/data", source=str(box.root / "rootfs/etc"), options=["rbind", "ro"])
    wanted.mounts.add(destination="-/dev/mqueue")
    wanted.rlimits.add(type="RLIMIT_NOFILE", hard=99, soft=77)
    wanted.linux.devices.add(path="/dev/mine", type="c", major=1, minor=3).file_mode.value = 0o600
    wanted.linux.namespaces.add(type="uts")
    wanted.linux.sysctl["kernel.domainname"] = "adjusted"
    wanted.linux.oom_score_adj.value = 700
    wanted.linux.resources.pids.limit = 41
    policy = wanted.linux.seccomp_policy
    policy.default_action = "SCMP_ACT_ALLOW"
    denied = policy.syscalls.add(names=["mkdir", "mkdirat"], action="SCMP_ACT_ERRNO")
    denied.errno_ret.value = errno.EXDEV
    (box.root / "rootfs/etc/below").mkdir()
    hook = wanted.hooks.create_runtime.add(path="/bin/sh")
    hook.args[:] = ["sh", "-c", f"cat >/dev/null; echo ran >{box.root}/hook"]
    out = box.run(
        "ulimit -n; cat /proc/sys/kernel/domainname /proc/self/oom_score_adj; stat -c %a /dev/mine; "
        "echo x >/dev/mine && echo written; ls -d /dev/mqueue; mount | grep -c /data; head -1 /data/passwd; "
        "mkdir /tmp/x 2>&1 | grep -o 'Invalid cross.*'; cat /proc/self/environ"
    )
    lines, environment = out.splitlines()[:-1], out.splitlines()[-1].split("\0")
    assert lines == [
        "77",
        "adjusted",
        "700",
        "600",
        "written",
        "2",
        "root:x:0:0::/root:/bin/sh",
        os.strerror(errno.EXDEV),
    ]
    assert {"RAW=\udcff", "NEW=new"} <= {*environment}
    assert "GONE" not in out
    assert (box.root / "hook").read_text() == "ran\n"


def test_the_pods_files_and_shm(box: Box) -> None:
    for name in ("hostname", "hosts", "resolv.conf"):
        (box.root / name).write_text(f"{name}\n")
    shm = box.root / "shm"
    shm.mkdir()
    mounts.mount("shm", shm, "tmpfs", 0, "size=1m,mode=1777")
    box.context = {
        "hostname_file": box.root / "hostname",
        "hosts": box.root / "hosts",
        "resolv_conf": box.root / "resolv.conf",
        "shm": shm,
    }
    out = box.run(
        "cat /etc/hostname /etc/hosts /etc/resolv.conf; touch /dev/shm/x; grep ' /dev/shm ' /proc/mounts"
    )
    assert out.startswith("hostname\nhosts\nresolv.conf\n")
    assert "size=1024k" in out
    assert (shm / "x").exists()


def test_shared_propagation(box: Box) -> None:
    shared = box.root / "shared"
    shared.mkdir()
    mounts.mount(shared, shared, None, mounts.Flag.BIND)
    mounts.mount("none", shared, None, mounts.Flag.SHARED)
    box.security.privileged = True
    box.sandbox.linux.security_context.privileged = True
    box.config.mounts.add(
        container_path="/shared", host_path=str(shared), propagation=api_pb2.PROPAGATION_BIDIRECTIONAL
    )
    box.run("mkdir /shared/m && mount -t tmpfs inside /shared/m && touch /shared/m/x")
    assert (shared / "m/x").exists()


@dataclass
class _Pod:
    pid: int

    def path(self, kind: str) -> Path:
        return Path(f"/proc/{self.pid}/ns/{kind}")


@pytest.fixture
def user_pod() -> Iterator[_Pod]:
    """Namespaces of a pod with IDs from 100000 on, held by a sleeping process."""
    command = ["unshare", "--user", "--net", "--ipc", "--uts", "sleep", "120"]
    holder = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10 * PATIENCE
        own = os.readlink("/proc/self/ns/uts")
        while os.readlink(f"/proc/{holder.pid}/ns/uts") == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text("0 100000 65536")
        yield _Pod(holder.pid)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()


@pytest.mark.parametrize("host_network", [False, True])
def test_user_namespace(box: Box, user_pod: _Pod, host_network: bool) -> None:
    options = box.sandbox.linux.security_context.namespace_options
    options.network = api_pb2.NODE if host_network else api_pb2.POD
    options.userns_options.mode = api_pb2.POD
    for mappings in (options.userns_options.uids, options.userns_options.gids):
        mappings.add(container_id=0, host_id=100000, length=65536)
    box.security.namespace_options.userns_options.CopyFrom(options.userns_options)
    path: Callable[[str], Path] = user_pod.path
    box.namespaces = NamespacePaths(ipc=path("ipc"), user=path("user"))
    if not host_network:
        box.namespaces = replace(box.namespaces, network=path("net"), uts=path("uts"))
    for directory, _, files in os.walk(box.root / "rootfs"):
        os.chown(directory, 100000, 100000)
        for name in files:
            os.chown(os.path.join(directory, name), 100000, 100000)
    box.root.chmod(0o755)
    data = box.root / "volume"
    data.mkdir()
    (data / "mine").write_text("")
    mount = box.config.mounts.add(container_path="/volume", host_path=str(data))
    mount.uidMappings.extend(options.userns_options.uids)
    mount.gidMappings.extend(options.userns_options.gids)
    box.config.envs.add(key="RAW", value=b"\xff")
    out = box.run(
        "id -u; stat -c %u /volume/mine; touch /volume/new && echo ok; cat /proc/self/uid_map;"
        "ls /sys/class/net"
    )
    assert out.split()[:6] == ["0", "0", "ok", "0", "100000", "65536"]
    assert sorted(out.split()[6:]) == (sorted(os.listdir("/sys/class/net")) if host_network else ["lo"])
    assert (data / "new").stat().st_uid == 0
