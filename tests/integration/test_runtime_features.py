"""What pods and containers may ask for, seen from inside real ones, with crun and with runc."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import parse_log, pod_config
from triptych_dev.ociimages import Layer, Pusher, build, busybox_layer
from triptych_dev.stack import Registry, Stack
from triptych_dev.testing.driver import DEADLINE, Driver, Pod, driving, refused

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

FIRST = 200_000
LENGTH = 65_536


@pytest.fixture(scope="module")
def image(live_stack: Stack, live_registry: Registry) -> str:
    """An image with an own user, a volume and a stop signal."""
    layer = busybox_layer()
    layer.directory("data", 0o755, uid=1000, gid=1000).file(
        "data/seed", "from the image\n", uid=1000, gid=1000
    )
    layer.file("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/data:/bin/sh\n")
    layer.file("etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    config = {
        "Env": ["PATH=/bin", "FROM=image"],
        "Volumes": {"/data": {}, "/made": {}},
        "StopSignal": "SIGUSR1",
    }
    content = build([Layer().directory("models/a").file("models/a/weights", "12345\n").file("top", "top\n")])
    pusher = Pusher(live_registry.host)
    for name, made in (("features", build([layer], config)), ("content", content)):
        live_stack.pull(pusher.push(name, "1", made))
    return f"{live_registry.host}/features:1"


@pytest.fixture(params=["crun", "runc"])
def driver(live_stack: Stack, image: str, request: pytest.FixtureRequest) -> Iterator[Driver]:
    with driving(live_stack, image, request.param) as made:
        yield made


def mapped(name: str, *, host_network: bool = False) -> cri.PodSandboxConfig:
    """A pod with a user namespace of its own (`hostUsers: false`)."""
    config = pod_config(name, host_network=host_network)
    users = config.linux.security_context.namespace_options.userns_options
    users.mode = cri.POD
    for mappings in (users.uids, users.gids):
        mappings.add(container_id=0, host_id=FIRST, length=LENGTH)
    return config


def in_pod(driver: Driver, pod: Pod, config: cri.ContainerConfig) -> None:
    """Give a container the namespace options of its pod, as the kubelet does."""
    options = pod.config.linux.security_context.namespace_options
    config.linux.security_context.namespace_options.CopyFrom(options)


@pytest.mark.parametrize("host_network", [False, True], ids=["own-network", "host-network"])
def test_a_user_namespace(driver: Driver, tmp_path: Path, host_network: bool) -> None:
    pod = driver.run(mapped("mapped", host_network=host_network))
    config = driver.config("app")
    in_pod(driver, pod, config)
    plain, shifted = tmp_path / "plain", tmp_path / "shifted"
    for directory in (tmp_path, plain, shifted):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
    (plain / "file").write_text("of the host's root\n")
    (shifted / "file").write_text("of the container's root\n")
    os.chown(plain, FIRST, FIRST)
    config.mounts.add(container_path="/plain", host_path=str(plain))
    idmapped = config.mounts.add(container_path="/shifted", host_path=str(shifted))
    for mappings in (idmapped.uidMappings, idmapped.gidMappings):
        mappings.add(container_id=0, host_id=FIRST, length=LENGTH)
    container = driver.launch(pod, config)

    def say(script: str) -> str:
        return driver.output(container, "sh", "-c", script).strip()

    assert say("cat /proc/self/uid_map").split() == ["0", str(FIRST), str(LENGTH)]
    assert say("id -u; id -g").split() == ["0", "0"]
    pid = driver.container_info(container)["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == FIRST
    # The image's files belong to the container's users; what is written belongs to them on disk too.
    assert say("stat -c %u:%g /bin/busybox /data/seed").split() == ["0:0", "1000:1000"]
    assert say("echo mine >/new && stat -c %u /new") == "0"
    assert "from the image" in say("cat /data/seed && echo more >/data/more && chown app /data/more")
    # A volume of the image config that none of its layers has is of the pod's root.
    assert say("touch /made/x && stat -c %u:%g /made") == "0:0"
    # A volume as it is on the host, and one that is mapped.
    assert say("stat -c %u /plain /plain/file; cat /plain/file").split("\n")[:2] == ["0", "65534"]
    assert say("echo x >/plain/made && echo y >/shifted/made && stat -c %u /shifted/file") == "0"
    assert (plain / "made").stat().st_uid == FIRST
    assert (shifted / "made").stat().st_uid == 0
    # A command may open its output again, as nginx does.
    assert say("echo again >/dev/stdout") == "again"
    assert say("echo again >/proc/1/fd/1 && echo done") == "done"
    # The node's null device, which its input is, is not the container's to change.
    driver.output(container, "chmod", "666", "/dev/null", code=1)
    assert say("test -p /proc/self/fd/0 && cat") == ""
    # The pod's files, its shared memory, its network.
    assert say("test -s /etc/hosts && cat /etc/resolv.conf") != ""
    assert say("echo z >/dev/shm/z && stat -c %u /dev/shm/z") == "0"
    if not host_network:
        assert "eth0" in say("ip -o addr")
        assert say("hostname") == "mapped"
        assert say("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "0"
    driver.stop(container, 0)
    assert driver.status(container).state == cri.CONTAINER_EXITED


def test_a_user_namespace_with_a_shared_pid_namespace(driver: Driver) -> None:
    config = mapped("shared")
    config.linux.security_context.namespace_options.pid = cri.POD
    pod = driver.run(config)
    names = ("a", "b")
    containers = []
    for name in names:
        one = driver.config(name)
        in_pod(driver, pod, one)
        containers.append(driver.launch(pod, one))
    seen = driver.output(containers[0], "ps", "-o", "pid,args")
    assert seen.count("sleep 1000") >= 2
    assert driver.output(containers[0], "cat", "/proc/1/uid_map").split() == ["0", str(FIRST), str(LENGTH)]


def test_users_and_groups(driver: Driver) -> None:
    pod = driver.run("users")
    config = driver.config("app")
    context = config.linux.security_context
    context.run_as_username = "app"
    context.supplemental_groups.append(3000)
    container = driver.launch(pod, config)
    user = driver.status(container).user.linux
    assert (user.uid, user.gid, sorted(user.supplemental_groups)) == (1000, 1000, [1000, 2000, 3000])
    assert driver.output(container, "id", "-u").strip() == "1000"
    assert sorted(driver.output(container, "id", "-G").split()) == ["1000", "2000", "3000"]
    strict = driver.config("strict")
    strict.linux.security_context.CopyFrom(context)
    strict.linux.security_context.supplemental_groups_policy = cri.Strict
    container = driver.launch(pod, strict)
    assert sorted(driver.status(container).user.linux.supplemental_groups) == [1000, 3000]
    group_only = driver.config("group")
    group_only.linux.security_context.run_as_group.value = 5
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.create(pod, group_only)
    assert "run_as_group" in refusal.text


def test_image_volumes(driver: Driver, live_stack: Stack, live_registry: Registry) -> None:
    pod = driver.run("volumes")
    config = driver.config("app")
    content = f"{live_registry.host}/content:1"
    for path, sub in (("/all", ""), ("/part", "models/a")):
        config.mounts.add(
            container_path=path, image=cri.ImageSpec(image=content), image_sub_path=sub, readonly=True
        )
    container = driver.launch(pod, config)
    assert driver.output(container, "cat", "/all/top", "/part/weights") == "top\n12345\n"
    assert "Read-only" in driver.output(container, "sh", "-c", "touch /part/x 2>&1; true")
    listed = [m for m in driver.status(container).mounts if m.container_path == "/part"]
    assert listed[0].image.image == content
    assert listed[0].image_sub_path == "models/a"
    with live_stack.images() as images:
        found = images.ImageStatus(
            cri.ImageStatusRequest(image=cri.ImageSpec(image=content)), timeout=DEADLINE
        )
    assert listed[0].image.image_ref == found.image.id
    for sub in ("models/none", "../../etc"):
        broken = driver.config("broken")
        broken.mounts.add(
            container_path="/x", image=cri.ImageSpec(image=content), image_sub_path=sub, readonly=True
        )
        with pytest.raises(grpc.RpcError) as error:
            driver.create(pod, broken)
        assert str(error.value).count("ImageVolumeMountFailed"), error.value
    driver.stop_pod(pod)
    driver.remove_pod(pod)


def test_a_mount_with_an_image_that_names_none_is_one_of_the_host(driver: Driver, tmp_path: Path) -> None:
    pod = driver.run("no-image-volume")
    (tmp_path / "file").write_text("here")
    app = driver.config("app")
    app.mounts.add(container_path="/data", host_path=str(tmp_path), image=cri.ImageSpec())
    assert driver.output(driver.launch(pod, app), "cat", "/data/file") == "here"


def test_image_volumes_of_a_mapped_pod(driver: Driver, live_registry: Registry) -> None:
    pod = driver.run(mapped("mapped-volumes"))
    config = driver.config("app")
    in_pod(driver, pod, config)
    image = cri.ImageSpec(image=f"{live_registry.host}/content:1")
    config.mounts.add(container_path="/part", image=image, image_sub_path="models/a", readonly=True)
    container = driver.launch(pod, config)
    assert driver.output(container, "stat", "-c", "%u %n", "/part/weights") == "0 /part/weights\n"
    assert driver.output(container, "cat", "/part/weights") == "12345\n"


def test_mounts(driver: Driver, tmp_path: Path) -> None:
    pod = driver.run("mounts")
    config = driver.config("app")
    tmp_path.chmod(0o755)
    (tmp_path / "program").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "program").chmod(0o755)
    for name in ("plain", "limited", "fixed"):
        config.mounts.add(container_path=f"/{name}", host_path=str(tmp_path))
    config.mounts[1].mount_options.extend(["noexec", "nosuid", "nodev"])
    config.mounts[2].readonly = config.mounts[2].recursive_read_only = True
    config.mounts[2].propagation = cri.PROPAGATION_PRIVATE
    container = driver.launch(pod, config)
    assert driver.output(container, "/plain/program") == "ran\n"
    driver.output(container, "sh", "-c", "/limited/program", code=126)
    options = driver.output(container, "sh", "-c", "grep ' /limited ' /proc/mounts")
    assert all(option in options for option in ("noexec", "nosuid", "nodev"))
    driver.output(container, "touch", "/fixed/x", code=1)
    bad = driver.config("bad")
    bad.mounts.add(container_path="/x", host_path=str(tmp_path)).mount_options.append("no-such")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.create(pod, bad)
    assert "no-such" in refusal.text


def test_mount_options_in_a_user_namespace(driver: Driver, tmp_path: Path) -> None:
    pod = driver.run(mapped("mapped-options"))
    config = driver.config("app")
    in_pod(driver, pod, config)
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch()
    wanted: dict[str, tuple[list[str], bool, str]] = {
        "/written": (["noexec", "nosuid", "nodev"], False, "rw,nosuid,nodev,noexec"),
        "/read": (["noexec", "noatime"], True, "ro,noexec,noatime"),
        "/below": (["rnoexec"], True, "ro,noexec"),
        "/file": (["nodev"], True, "ro,nodev"),
    }
    for path, (options, readonly, _) in wanted.items():
        source = tmp_path / path.lstrip("/") if path == "/file" else tmp_path
        mount = config.mounts.add(container_path=path, host_path=str(source), readonly=readonly)
        mount.mount_options.extend(options)
        for mappings in (mount.uidMappings, mount.gidMappings) if path == "/read" else ():
            mappings.add(container_id=0, host_id=FIRST, length=LENGTH)
    container = driver.launch(pod, config)
    for path, (_, _, flags) in wanted.items():
        line = driver.output(container, "sh", "-c", f"grep ' {path} ' /proc/mounts")
        assert set(flags.split(",")) <= set(line.split()[3].split(",")), line
    bundle = driver.container_info(container)["bundle"]
    assert bundle in Path("/proc/self/mounts").read_text()
    driver.remove(container)
    assert bundle not in Path("/proc/self/mounts").read_text()


def test_devices_and_cdi(driver: Driver) -> None:
    pod = driver.run("devices")
    config = driver.config("app")
    config.devices.add(host_path="/dev/null", container_path="/dev/mine", permissions="rw")
    vendor = f"triptych.dev/{driver.handler}"
    spec = Path("/var/run/cdi") / f"triptych-test-{driver.handler}.json"
    existed = spec.parent.exists()
    spec.parent.mkdir(exist_ok=True)
    edits = {
        "env": ["CDI=yes"],
        "deviceNodes": [{"path": "/dev/injected", "hostPath": "/dev/zero"}],
        "mounts": [
            {"hostPath": "/proc/version", "containerPath": "/cdi-version", "options": ["ro", "bind"]}
        ],
    }
    spec.write_text(
        json.dumps(
            {"cdiVersion": "0.6.0", "kind": vendor, "devices": [{"name": "one", "containerEdits": edits}]}
        )
    )
    try:
        config.CDI_devices.add(name=f"{vendor}=one")
        container = driver.launch(pod, config)
        unknown = driver.config("unknown")
        unknown.CDI_devices.add(name=f"{vendor}=none")
        with pytest.raises(grpc.RpcError) as error:
            driver.create(pod, unknown)
        assert f"{vendor}=none" in str(error.value)
    finally:
        spec.unlink()
        if not existed:
            spec.parent.rmdir()
    assert (
        driver.output(container, "sh", "-c", "echo $CDI; test -c /dev/mine && echo x >/dev/mine") == "yes\n"
    )
    assert (
        driver.output(container, "sh", "-c", "head -c 3 /dev/injected | od -An -tx1").split() == ["00"] * 3
    )
    assert "Linux" in driver.output(container, "cat", "/cdi-version")


def test_devices_of_another_name_in_a_user_namespace(driver: Driver) -> None:
    pod = driver.run(mapped("mapped-devices"))
    config = driver.config("app")
    in_pod(driver, pod, config)
    config.devices.add(host_path="/dev/full", container_path="/dev/kmsg", permissions="rw")
    config.devices.add(host_path="/dev/zero", container_path="/dev/below/mine", permissions="r")
    container = driver.launch(pod, config)
    numbers = driver.output(container, "stat", "-c", "%t:%T", "/dev/kmsg", "/dev/below/mine")
    assert numbers.split() == ["1:7", "1:5"]
    assert (
        driver.output(container, "sh", "-c", "head -c 2 /dev/below/mine | od -An -tx1").split() == ["00"] * 2
    )


def test_an_environment_of_bytes(driver: Driver, tmp_path: Path) -> None:
    pod = driver.run(pod_config("bytes", log_directory=str(tmp_path)))
    script = 'printf %s "$BYTES" | od -An -tx1; printf %s "$FROM$PLAIN"'
    config = driver.config("app", ("sh", "-c", script), env={"PLAIN": "ünicode"})
    config.envs.add(key="BYTES", value=b"\xff\xfe end")
    container = driver.launch(pod, config)
    assert driver.wait_exited(container).exit_code == 0
    # What is written in one go may come to the log in parts.
    text = "".join(line.text for line in parse_log((tmp_path / "app" / "0.log").read_text()))
    assert text.endswith("imageünicode")
    assert text.removesuffix("imageünicode").split() == ["ff", "fe", "20", "65", "6e", "64"]
    kept = driver.config("kept")
    kept.envs.add(key="BYTES", value=b"\xff\xfe")
    container = driver.launch(pod, kept)
    assert driver.output(container, "sh", "-c", 'printf %s "$BYTES" | od -An -tx1').split() == ["ff", "fe"]


def test_the_images_own_settings(driver: Driver) -> None:
    pod = driver.run("settings")
    container = driver.launch(pod, "app")
    assert driver.status(container).stop_signal == cri.SIGNAL_SIGUSR1
    assert driver.output(container, "sh", "-c", "echo $FROM; cat /data/seed") == "image\nfrom the image\n"
    named = driver.config("named")
    named.stop_signal = cri.SIGNAL_SIGINT
    container = driver.launch(pod, named)
    assert driver.status(container).stop_signal == cri.SIGNAL_SIGINT
