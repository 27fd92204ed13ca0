"""Whole documents, validation of whole requests, and facts of hosts and handlers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, Internal, InvalidArgument, TriptychError
from triptych_oci import ContainerConfig as Image
from triptych_runtime.spec import (
    CgroupVersion,
    ContainerInputs,
    ContainerSpec,
    HandlerFeatures,
    HostFacts,
    NamespacePaths,
    ResolvedUser,
    RootfsView,
    SandboxContext,
    build_container_spec,
    build_exec_process,
    encode,
    validate_container,
    validate_resources,
    validate_sandbox,
)
from triptych_runtime.spec.capabilities import DEFAULT, KNOWN
from triptych_runtime.spec.inputs import AnonymousVolume
from triptych_runtime.spec.volumes import populate

HOST = HostFacts(bounding=KNOWN, hostname="node")
HANDLER = HandlerFeatures(name="crun")


def pod() -> api_pb2.PodSandboxConfig:
    metadata = api_pb2.PodSandboxMetadata(name="pod", namespace="ns", uid="uid", attempt=1)
    return api_pb2.PodSandboxConfig(
        metadata=metadata, hostname="pod-host", annotations={"run.oci.x": "1", "secret": "s"}
    )


def container() -> api_pb2.ContainerConfig:
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"),
        image=api_pb2.ImageSpec(image="sha256:1", user_specified_image="busybox:1"),
        command=["sh"],
    )


PATHS = NamespacePaths(Path("/ns/net"), Path("/ns/ipc"), Path("/ns/uts"), Path("/ns/pid"))


def build(
    tmp_path: Path,
    config: api_pb2.ContainerConfig,
    sandbox: api_pb2.PodSandboxConfig | None = None,
    host: HostFacts = HOST,
    image: Image | None = None,
    **more: Any,
) -> ContainerSpec:
    inputs = ContainerInputs(
        container_id="id",
        config=config,
        image=image or Image(),
        rootfs=tmp_path / "rootfs",
        files=RootfsView([]),
        bundle=tmp_path,
        volumes=tmp_path / "volumes",
        cgroups_path="/kubepods/id",
        **more,
    )
    return build_container_spec(host, HANDLER, SandboxContext("sandbox", sandbox or pod(), PATHS), inputs)


def test_a_plain_container(tmp_path: Path) -> None:
    spec = build(tmp_path, container(), passthrough_annotations=("run.oci.*",))
    document = {key: value for key, value in spec.document.items() if key != "mounts"}
    sets = list(DEFAULT)
    assert document == {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOSTNAME=pod-host",
            ],
            "cwd": "/",
            "capabilities": {"bounding": sets, "effective": sets, "permitted": sets},
            "noNewPrivileges": False,
        },
        "root": {"path": str(tmp_path / "rootfs"), "readonly": False},
        "linux": {
            "namespaces": [
                {"type": "mount"},
                {"type": "network", "path": "/ns/net"},
                {"type": "ipc", "path": "/ns/ipc"},
                {"type": "uts", "path": "/ns/uts"},
                {"type": "pid", "path": "/ns/pid"},
                {"type": "cgroup"},
            ],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "cgroupsPath": "/kubepods/id",
            "maskedPaths": [],
            "readonlyPaths": [],
        },
        "annotations": {
            "run.oci.x": "1",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "sandbox",
            "io.kubernetes.cri.sandbox-name": "pod",
            "io.kubernetes.cri.sandbox-namespace": "ns",
            "io.kubernetes.cri.sandbox-uid": "uid",
            "io.kubernetes.cri.container-name": "main",
            "io.kubernetes.cri.image-name": "busybox:1",
            "io.container.manager": "triptych",
        },
    }
    assert (spec.user, spec.stop_signal.name) == (ResolvedUser(0, 0, (0,)), "SIGTERM")
    assert (spec.files, spec.directories, spec.anonymous_volumes, spec.prepared) == ((), (), (), ())


def test_security_and_limits_reach_the_document(tmp_path: Path) -> None:
    config = container()
    security = config.linux.security_context
    security.no_new_privs = security.readonly_rootfs = True
    security.masked_paths.append("/proc/keys")
    security.readonly_paths.append("/proc/sys")
    config.linux.resources.memory_limit_in_bytes = 1 << 20
    config.linux.resources.oom_score_adj = 7
    document = build(tmp_path, config).document
    assert document["process"]["noNewPrivileges"]
    assert document["process"]["oomScoreAdj"] == 7
    assert document["root"]["readonly"]
    assert document["linux"]["maskedPaths"] == ["/proc/keys"]
    assert document["linux"]["readonlyPaths"] == ["/proc/sys"]
    assert document["linux"]["resources"]["memory"] == {"limit": 1 << 20, "swap": 1 << 20}


def test_privileged(tmp_path: Path) -> None:
    config, sandbox = container(), pod()
    sandbox.linux.security_context.privileged = True
    config.linux.security_context.privileged = True
    config.linux.security_context.masked_paths.append("/proc/keys")
    config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    linux = build(tmp_path, config, sandbox, privileged_host_devices=False).document["linux"]
    assert "maskedPaths" not in linux
    assert "seccomp" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert {"type": "cgroup"} not in linux["namespaces"]


def test_selinux_labels_reach_the_document(tmp_path: Path) -> None:
    host = replace(HOST, selinux=True)
    inputs = ContainerInputs("id", container(), Image(), tmp_path, RootfsView([]), tmp_path, tmp_path)
    context = SandboxContext(
        "s",
        pod(),
        PATHS,
        shm=tmp_path,
        process_label="u:r:container_t:s0:c1,c2",
        mount_label="u:r:file_t:s0:c1,c2",
    )
    spec = build_container_spec(host, HANDLER, context, inputs)
    assert spec.document["process"]["selinuxLabel"] == "u:r:container_t:s0:c1,c2"
    assert spec.document["linux"]["mountLabel"] == "u:r:file_t:s0:c1,c2"
    assert [relabel.path for relabel in spec.relabels] == [tmp_path]
    plain = build_container_spec(HOST, HANDLER, context, inputs)
    assert "selinuxLabel" not in plain.document["process"]
    assert plain.relabels == ()


def test_mounts_of_the_status_are_those_of_the_request(tmp_path: Path) -> None:
    config = container()
    config.mounts.add(container_path="/x", host_path=str(tmp_path / "link"), readonly=True)
    (tmp_path / "link").symlink_to(tmp_path)
    spec = build(tmp_path, config)
    assert list(spec.mounts) == list(config.mounts)
    assert spec.mounts[0].host_path == str(tmp_path / "link")


def test_hostname_falls_back_to_the_hosts(tmp_path: Path) -> None:
    sandbox = pod()
    sandbox.hostname = ""
    assert "HOSTNAME=node" in build(tmp_path, container(), sandbox).document["process"]["env"]


def test_exec_process(tmp_path: Path) -> None:
    process = build(tmp_path, container()).document["process"]
    before = json.dumps(process)
    made = build_exec_process(process, ["ls", "-l"], tty=True, env={"X": "1"})
    assert (made["args"], made["terminal"]) == (["ls", "-l"], True)
    assert made["env"][-2:] == ["TERM=xterm", "X=1"]
    assert made["user"] == process["user"]
    assert json.dumps(process) == before
    assert build_exec_process(made, ["x"], tty=True)["env"].count("TERM=xterm") == 1
    with pytest.raises(InvalidArgument, match="cmd"):
        build_exec_process(process, [], tty=False)


def test_raw_environment_brings_its_program(tmp_path: Path) -> None:
    config = container()
    config.envs.add(key="RAW", value=b"\xff")
    spec = build(tmp_path, config)
    assert spec.document["process"]["args"] == ["/dev/.triptych-env", "sh"]
    assert not any(entry.startswith("RAW=") for entry in spec.document["process"]["env"])
    assert b"RAW=\xff\0" in spec.files[0].content
    exec_process = build_exec_process(spec.document["process"], ["ls"], tty=False)
    assert exec_process["args"] == ["/dev/.triptych-env", "ls"]


def test_encode(tmp_path: Path) -> None:
    config = container()
    config.envs.add(key="G", value="grün\u2028\x01".encode())
    spec = build(tmp_path, config)
    assert msgspec.json.decode(encode(spec.document)) == spec.document


def test_a_failed_build_changes_nothing(tmp_path: Path) -> None:
    config = container()
    config.mounts.add(container_path="/x", host_path=str(tmp_path / "new"))
    config.devices.add(host_path="/dev/no-such", permissions="r")
    with pytest.raises(TriptychError):
        build(tmp_path, config)
    assert list(tmp_path.iterdir()) == []


# Validation of requests


def test_good_requests_pass() -> None:
    validate_sandbox(pod(), HOST, HANDLER)
    validate_container(container(), pod(), HOST, HANDLER)
    validate_resources(api_pb2.LinuxContainerResources(), "linux")


def test_bad_sandboxes() -> None:
    def refused(message: str, change: Any) -> None:
        config = pod()
        change(config)
        with pytest.raises(InvalidArgument, match=message):
            validate_sandbox(config, HOST, HANDLER)

    refused("metadata", lambda c: c.ClearField("metadata"))
    refused("hostname", lambda c: setattr(c, "hostname", "x" * 65))
    refused("run_as_group", lambda c: setattr(c.linux.security_context.run_as_group, "value", 1))
    refused("network", lambda c: setattr(c.linux.security_context.namespace_options, "network", 3))
    refused("level", lambda c: setattr(c.linux.security_context.selinux_options, "level", "x"))
    refused("config.linux.resources.cpu_period", lambda c: setattr(c.linux.resources, "cpu_period", 1))
    refused("config.linux.overhead.cpu_period", lambda c: setattr(c.linux.overhead, "cpu_period", 1))
    refused("seccomp", lambda c: setattr(c.linux.security_context, "seccomp_profile_path", "x"))


def test_bad_containers() -> None:
    def refused(message: str, change: Any) -> None:
        config = container()
        change(config, config.linux.security_context)
        with pytest.raises(InvalidArgument, match=message):
            validate_container(config, pod(), HOST, HANDLER)

    refused("metadata", lambda c, s: c.ClearField("metadata"))
    refused("stop_signal", lambda c, s: setattr(c, "stop_signal", 99))
    refused("envs", lambda c, s: c.envs.add())
    refused("working_dir", lambda c, s: setattr(c, "working_dir", "x"))
    refused("mounts", lambda c, s: c.mounts.add())
    refused("devices", lambda c, s: c.devices.add())
    refused("CDI device", lambda c, s: c.CDI_devices.add(name="x"))
    refused("resources", lambda c, s: setattr(c.linux.resources, "cpu_period", 1))
    refused("privileged: the pod is not", lambda c, s: setattr(s, "privileged", True))
    refused("target_id", lambda c, s: setattr(s.namespace_options, "pid", api_pb2.TARGET))
    refused("is NODE, but", lambda c, s: setattr(s.namespace_options, "pid", api_pb2.NODE))
    refused("run_as_group", lambda c, s: setattr(s.run_as_group, "value", 1))
    refused("is no Linux capability", lambda c, s: s.capabilities.add_capabilities.append("X"))
    refused("level", lambda c, s: setattr(s.selinux_options, "level", "x"))
    refused("seccomp", lambda c, s: setattr(s, "seccomp_profile_path", "x"))
    refused("apparmor", lambda c, s: setattr(s, "apparmor_profile", "x"))
    refused("masked_paths", lambda c, s: s.masked_paths.append("x"))
    refused("readonly_paths", lambda c, s: s.readonly_paths.append("x"))


def test_apparmor_without_a_kernel_for_it() -> None:
    config = container()
    config.linux.security_context.apparmor_profile = "localhost/x"
    with pytest.raises(FailedPrecondition, match="apparmor"):
        validate_container(config, pod(), HOST, HANDLER)


# Facts


def test_probe_tells_this_host() -> None:
    facts = HostFacts.probe()
    assert facts.cgroup_version in CgroupVersion
    assert facts.machine == os.uname().machine
    assert facts.kernel >= (4, 0)
    assert set(facts.bounding) <= set(KNOWN)
    assert facts.seccomp_harden
    assert not HostFacts.probe(seccomp_profile=Path("/etc/own.json")).seccomp_harden


CRUN = "crun version 1.8.1\ncommit: f8a0\nspec: 1.0.0\n+SYSTEMD +SELINUX +CAP +SECCOMP +EBPF +YAJL\n"
RUNC = "runc version 1.1.5+ds1\ncommit: x\nspec: 1.0.2-dev\ngo: go1.19.8\nlibseccomp: 2.5.4\n"


def test_versions() -> None:
    crun = HandlerFeatures.of_version(CRUN)
    assert (crun.name, crun.version) == ("crun", (1, 8, 1))
    assert (crun.recursive_read_only, crun.idmap_mounts, crun.user_namespaces) == (True, False, True)
    assert (crun.seccomp, crun.apparmor, crun.selinux) == (True, False, True)
    assert "noatime" in crun.mount_options
    assert not {"nosymfollow", "rnosymfollow", "rrelatime"} & crun.mount_options
    assert HandlerFeatures.of_version(CRUN.replace("1.8.1", "1.21")).idmap_mounts
    runc = HandlerFeatures.of_version(RUNC)
    assert (runc.version, runc.idmap_mounts, runc.recursive_read_only) == ((1, 1, 5), False, True)
    assert not HandlerFeatures.of_version("runc version 1.0.3\n").recursive_read_only
    assert HandlerFeatures.of_version("youki version: 0.5.0\n").name == "youki"
    assert HandlerFeatures.of_version("what?") == HandlerFeatures()


def test_features_document() -> None:
    document = {
        "ociVersionMin": "1.0.0",
        "mountOptions": ["rro", "noexec"],
        "linux": {
            "namespaces": ["mount", "user"],
            "seccomp": {"enabled": True},
            "apparmor": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }
    features = HandlerFeatures.of_features(json.dumps(document).encode(), RUNC)
    assert (features.name, features.recursive_read_only, features.idmap_mounts) == ("runc", True, True)
    assert (features.seccomp, features.apparmor, features.user_namespaces) == (True, False, True)
    assert features.mount_options == {"rro", "noexec"}
    with pytest.raises(Internal, match="features document"):
        HandlerFeatures.of_features(b"[]")


# Volumes of the image config


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_populate(tmp_path: Path) -> None:
    root = tmp_path / "root"
    data = root / "srv/data"
    (data / "sub").mkdir(parents=True)
    (data / "sub/file").write_text("content")
    (data / "link").symlink_to("/etc/passwd")
    os.mkfifo(data / "fifo")
    os.chown(data, 5, 6)
    os.chown(data / "sub/file", 7, 8)
    (data / "sub/file").chmod(0o4751)
    (root / "data").symlink_to("/srv/data")
    volume = AnonymousVolume(tmp_path / "volumes/0", "/data")
    populate(root, volume)
    made = volume.source
    assert ((made).stat().st_uid, made.stat().st_gid) == (5, 6)
    assert (made / "sub/file").read_text() == "content"
    assert (made / "sub/file").stat().st_mode & 0o7777 == 0o4751
    assert (made / "sub/file").stat().st_uid == 7
    assert os.readlink(made / "link") == "/etc/passwd"
    assert (made / "fifo").is_fifo()


def test_populate_what_the_image_lacks(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_text("")
    for name in ("none", "file", "file/below"):
        owner = (200_000, 300_000) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        volume = AnonymousVolume(tmp_path / "volumes" / name.replace("/", "-"), f"/{name}", owner)
        populate(tmp_path / "root", volume)
        assert list(volume.source.iterdir()) == []
        status = volume.source.stat()
        assert (status.st_uid, status.st_gid) == owner
