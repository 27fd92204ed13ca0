from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument
from triptych_linux import mounts as mount_attributes
from triptych_linux.mounts import Attributes, MountEntry
from triptych_oci import ContainerConfig as Image
from triptych_runtime.spec import (
    CgroupVersion,
    ContainerInputs,
    HandlerFeatures,
    HostFacts,
    NamespacePaths,
    PreparedMount,
    Relabel,
    RootfsView,
    SandboxContext,
    mount_options,
    mounts,
)

Mount = api_pb2.Mount
HOST = HostFacts()
CURRENT = HandlerFeatures(name="crun")
HIDDEN = ["nosuid", "noexec", "nodev"]


def entry(optional: tuple[str, ...] = ()) -> MountEntry:
    return MountEntry(1, 0, "0:1", "/", "/point", "rw", optional, "ext4", "/dev/x", "rw")


class Case:
    """Builds mounts of one container."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = api_pb2.ContainerConfig()
        self.sandbox = SandboxContext("pod", api_pb2.PodSandboxConfig())
        self.image = Image()
        self.host = HOST
        self.handler = CURRENT
        self.label = ""
        self.optional: tuple[str, ...] = ()
        self.more: dict[str, Any] = {}

    def build(self) -> mounts.Mounts:
        inputs = ContainerInputs(
            container_id="id",
            config=self.config,
            image=self.image,
            rootfs=self.root / "rootfs",
            files=RootfsView([]),
            bundle=self.root / "bundle",
            volumes=self.root / "volumes",
            **self.more,
        )
        return mounts.build(
            self.host,
            self.handler,
            self.sandbox,
            inputs,
            self.label,
            find_mount=lambda path: entry(self.optional),
        )

    def by_path(self) -> dict[str, dict[str, Any]]:
        return {m["destination"]: m for m in self.build().entries}

    def add(self, path: str, **more: Any) -> Mount:
        host = more.pop("host_path", str(self.root))
        return self.config.mounts.add(container_path=path, host_path=host, **more)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_default_mounts(case: Case) -> None:
    assert case.build().entries == [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": HIDDEN},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*HIDDEN, "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": HIDDEN},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*HIDDEN, "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*HIDDEN, "relatime", "ro"],
        },
    ]


def test_privileged_may_write_sys(case: Case) -> None:
    case.config.linux.security_context.privileged = True
    case.host = replace(HOST, cgroup_mount_options=("nsdelegate",))
    found = case.by_path()
    assert found["/sys"]["options"] == [*HIDDEN, "rw"]
    assert found["/sys/fs/cgroup"]["options"] == [*HIDDEN, "relatime", "rw", "nsdelegate"]
    case.host = replace(case.host, cgroup_version=CgroupVersion.V1, cgroup_mount_options=())
    assert case.by_path()["/sys/fs/cgroup"]["options"] == [*HIDDEN, "relatime", "rw"]


def test_writable_cgroups(case: Case) -> None:
    case.more["cgroup_writable"] = True
    assert case.by_path()["/sys/fs/cgroup"]["options"][-1] == "rw"


def test_a_mount_of_the_request(case: Case) -> None:
    case.add("/data/../data/x/", readonly=True)
    made = case.build()
    assert made.entries[-1] == {
        "destination": "/data/x",
        "type": "bind",
        "source": str(case.root),
        "options": ["rbind", "rprivate", "ro"],
    }
    assert made.directories == []
    assert made.rootfs_propagation == ""


def test_a_missing_host_path_becomes_a_directory(case: Case) -> None:
    case.add("/new", host_path=str(case.root / "a/b"))
    assert case.build().directories == [case.root / "a/b"]


def test_symlinks_of_the_host_are_followed(case: Case) -> None:
    (case.root / "real").mkdir()
    (case.root / "link").symlink_to("real")
    case.add("/x", host_path=str(case.root / "link"))
    assert case.by_path()["/x"]["source"] == str(case.root / "real")


def test_order_is_by_depth_and_stable(case: Case) -> None:
    for path in ("/a/b/c", "/z", "/a/b", "/a", "/b/c"):
        case.add(path)
    paths = [m["destination"] for m in case.build().entries][7:]
    assert paths == ["/z", "/a", "/a/b", "/b/c", "/a/b/c"]


def test_requests_replace_defaults(case: Case) -> None:
    case.add("/sys/fs/cgroup")
    assert case.by_path()["/sys/fs/cgroup"]["type"] == "bind"
    case.add("/dev")
    found = case.by_path()
    assert found["/dev"]["type"] == "bind"
    assert "/dev/pts" not in found
    assert "/proc" in found


def test_files_of_the_pod(case: Case) -> None:
    for name in ("hostname", "hosts", "resolv"):
        (case.root / name).write_text("")
    case.sandbox = replace(
        case.sandbox,
        hostname_file=case.root / "hostname",
        hosts=case.root / "hosts",
        resolv_conf=case.root / "none",
        shm=case.root / "shm",
    )
    case.add("/etc/hosts", host_path=str(case.root / "resolv"))
    found = case.by_path()
    assert found["/etc/hostname"]["options"] == ["rbind", "rprivate", "rw"]
    assert found["/etc/hosts"]["source"] == str(case.root / "resolv")
    assert "/etc/resolv.conf" not in found
    assert found["/dev/shm"]["source"] == str(case.root / "shm")
    case.config.linux.security_context.readonly_rootfs = True
    assert case.by_path()["/etc/hostname"]["options"][-1] == "ro"


def test_shm_of_the_host(case: Case) -> None:
    case.sandbox.config.linux.security_context.namespace_options.ipc = api_pb2.NODE
    assert case.by_path()["/dev/shm"]["source"] == "/dev/shm"


def test_image_volumes(case: Case) -> None:
    mount = case.config.mounts.add(container_path="/model", readonly=True)
    mount.image.image = "model:1"
    mount.uidMappings.add(length=1)
    mount.gidMappings.add(length=1)
    case.more["image_volumes"] = {0: Path("/prepared")}
    assert case.by_path()["/model"] == {
        "destination": "/model",
        "type": "bind",
        "source": "/prepared",
        "options": ["rbind", "rprivate", "ro"],
    }


def test_volumes_of_the_image_config(case: Case) -> None:
    case.image = Image(volumes={"/b": {}, "a/": {}, "/c": {}, "/": {}})
    case.add("/c")
    made = case.build()
    assert [(v.destination, v.source.name) for v in made.volumes] == [("/b", "1"), ("/a", "3")]
    found = {m["destination"]: m for m in made.entries}
    assert found["/a"]["options"] == ["rbind", "rprivate", "rw"]
    assert found["/c"]["source"] == str(case.root)
    assert made.directories == []
    assert {v.owner for v in made.volumes} == {(0, 0)}
    user_pod(case)
    assert {v.owner for v in case.build().volumes} == {(100000, 100000)}


def test_propagation(case: Case) -> None:
    case.add("/slave", propagation=api_pb2.PROPAGATION_HOST_TO_CONTAINER)
    case.optional = ("master:3",)
    made = case.build()
    assert (made.rootfs_propagation, made.entries[-1]["options"][1]) == ("rslave", "rslave")
    case.add("/shared", propagation=api_pb2.PROPAGATION_BIDIRECTIONAL)
    with pytest.raises(FailedPrecondition, match="/shared: host path .* which is not a shared mount"):
        case.build()
    case.optional = ("shared:1", "master:2")
    made = case.build()
    assert made.rootfs_propagation == "rshared"
    assert [m["options"][1] for m in made.entries[-2:]] == ["rslave", "rshared"]
    case.optional = ()
    with pytest.raises(FailedPrecondition, match="/slave.*not a shared or slave mount"):
        case.build()


def test_recursive_read_only(case: Case) -> None:
    case.add("/rro", readonly=True, recursive_read_only=True)
    assert case.by_path()["/rro"]["options"] == ["rbind", "rprivate", "rro"]


def test_mount_options(case: Case) -> None:
    case.add("/x", mount_options=["noexec", "nodev", "noexec"])
    assert case.by_path()["/x"]["options"] == ["rbind", "rprivate", "rw", "noexec", "nodev"]
    assert mount_options.merge(["rbind", "exec"], ["noexec"]) == ["rbind", "noexec"]


def test_relabelling(case: Case) -> None:
    case.add("/x", selinux_relabel=True)
    case.add("/y")
    assert case.build().relabels == []
    case.label = "label"
    assert case.build().relabels == [Relabel(case.root, "label")]


def user_pod(case: Case, *, host_network: bool = False, length: int = 65536) -> None:
    options = case.sandbox.config.linux.security_context.namespace_options
    options.userns_options.mode = api_pb2.POD
    for mappings in (options.userns_options.uids, options.userns_options.gids):
        mappings.add(container_id=0, host_id=100000, length=length)
    net = None if host_network else Path("/ns/net")
    case.sandbox = replace(case.sandbox, namespaces=NamespacePaths(network=net, user=Path("/ns/user")))


def map_mount(case: Case, mount: Mount) -> None:
    user = case.sandbox.config.linux.security_context.namespace_options.userns_options
    mount.uidMappings.extend(user.uids)
    mount.gidMappings.extend(user.gids)


def test_idmapped_mounts(case: Case) -> None:
    user_pod(case)
    map_mount(case, case.add("/x"))
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    found = case.by_path()["/x"]
    assert (found["uidMappings"], found["gidMappings"]) == (mapping, mapping)
    case.handler = HandlerFeatures(name="old", idmap_mounts=False)
    made = case.build()
    target = case.root / "bundle/prepared/0"
    assert made.prepared == [PreparedMount(case.root, target, (), Path("/ns/user"))]
    assert made.entries[-1]["source"] == str(target)
    assert "uidMappings" not in made.entries[-1]


def test_a_user_namespace_keeps_the_flags_of_the_mount_below(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def statvfs(path: str) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_flag=os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)

    monkeypatch.setattr(os, "statvfs", statvfs)
    case.add("/x", host_path=f"{case.root}/none/such", readonly=True)
    case.add("/y", mount_options=["exec"])
    assert case.by_path()["/x"]["options"] == ["rbind", "rprivate", "ro"]
    user_pod(case)
    found = case.by_path()
    assert found["/x"]["options"] == ["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"]
    assert found["/y"]["options"] == ["rbind", "rprivate", "rw", "nosuid", "nodev", "exec"]
    assert set(asked) == {str(case.root)}


def test_mounts_that_others_add_keep_the_flags_of_the_mount_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_options, "of_mount", lambda _: ["nosuid", "nodev", "noexec"])
    plain: dict[str, Any] = {"linux": {}}
    user: dict[str, Any] = {"linux": {"uidMappings": [{}]}}
    asked = ["ro", "nosuid", "exec"]
    assert mounts.bind_options("bind", asked, "/x", plain) == ["rbind", *asked]
    assert mounts.bind_options("bind", asked, "/x", user) == ["rbind", *asked, "nodev"]
    assert mounts.bind_options("tmpfs", asked, "tmpfs", user) == asked


def test_mount_options_in_a_user_namespace_are_the_daemons(case: Case) -> None:
    options = ["noexec", "rnodev", "dev", "rnoatime"]
    case.add("/x", mount_options=options, readonly=True)
    case.add("/y", mount_options=["nosuid"], propagation=api_pb2.PROPAGATION_HOST_TO_CONTAINER)
    case.optional = ("shared:1",)
    assert case.build().prepared == []
    user_pod(case)
    made = case.build()
    first, second = (case.root / f"bundle/prepared/{index}" for index in range(2))
    assert made.prepared == [
        PreparedMount(case.root, first, tuple(options)),
        PreparedMount(case.root, second, ("nosuid",), slave=True),
    ]
    found = {m["destination"]: m for m in made.entries}
    # What is below is done by then, so what the handler sees is the topmost mount as it is.
    assert found["/x"]["source"] == str(first)
    assert found["/x"]["options"] == ["rbind", "rprivate", "ro", "noexec", "nodev", "noatime"]
    assert found["/y"]["options"] == ["rbind", "rslave", "rw", "nosuid"]
    case.add("/z", mount_options=["nodev"], propagation=api_pb2.PROPAGATION_BIDIRECTIONAL)
    with pytest.raises(FailedPrecondition, match=r"/z: mount_options.*bidirectional"):
        case.build()


def test_attributes_of_mount_options() -> None:
    everything = mount_options.attributes(["rnoexec", "suid", "nosymfollow", "strictatime", "rdiratime"])
    assert everything == [
        Attributes(clear=mount_attributes.MOUNT_ATTR_NOSUID),
        Attributes(mount_attributes.MOUNT_ATTR_NOSYMFOLLOW),
        Attributes(mount_attributes.MOUNT_ATTR_STRICTATIME, mount_attributes.MOUNT_ATTR__ATIME),
        Attributes(mount_attributes.MOUNT_ATTR_NOEXEC, recursive=True),
        Attributes(clear=mount_attributes.MOUNT_ATTR_NODIRATIME, recursive=True),
    ]


def test_a_file_has_nothing_below_it(case: Case) -> None:
    (case.root / "file").touch()
    recursive = {"readonly": True, "recursive_read_only": True, "mount_options": ["rnoexec"]}
    case.add("/x", host_path=f"{case.root}/file", **recursive)
    case.add("/y", **recursive)
    found = case.by_path()
    assert found["/x"]["options"] == ["rbind", "rprivate", "ro", "noexec"]
    assert found["/y"]["options"] == ["rbind", "rprivate", "rro", "rnoexec"]


def test_idmaps_that_an_old_runtime_cannot_do(case: Case) -> None:
    case.handler = HandlerFeatures(name="old", idmap_mounts=False)
    mount = case.add("/x", propagation=api_pb2.PROPAGATION_HOST_TO_CONTAINER)
    mount.uidMappings.add(host_id=5, length=1)
    mount.gidMappings.add(host_id=5, length=1)
    case.optional = ("shared:1",)
    with pytest.raises(FailedPrecondition, match="other than the pod's"):
        case.build()
    user_pod(case)
    del mount.uidMappings[:], mount.gidMappings[:]
    map_mount(case, mount)
    with pytest.raises(FailedPrecondition, match="propagation with an ID mapping"):
        case.build()


def test_user_namespace_and_host_network_share_sys(case: Case) -> None:
    user_pod(case)
    assert case.by_path()["/sys"]["type"] == "sysfs"
    user_pod(case, host_network=True)
    assert case.by_path()["/sys"] == {
        "destination": "/sys",
        "type": "bind",
        "source": "/sys",
        "options": ["rbind", "rprivate", "rro", "nosuid", "nodev", "noexec"],
    }


def test_a_small_mapping_has_no_tty_group(case: Case) -> None:
    user_pod(case, length=5)
    assert "gid=5" not in case.by_path()["/dev/pts"]["options"]


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (Mount(host_path="/x"), "container_path is empty"),
        (Mount(container_path="/", host_path="/x"), "root of the container"),
        (Mount(container_path="/a/..", host_path="/x"), "root of the container"),
        (Mount(container_path="/a"), "host_path '' is not an absolute path"),
        (Mount(container_path="/a", host_path="x"), "not an absolute path"),
        (Mount(container_path="/a", host_path="/x\0"), "NUL"),
        (Mount(container_path="/a", host_path="/x", image_sub_path="s"), "image_sub_path is set without"),
        (
            Mount(container_path="/a", host_path="/x", image=api_pb2.ImageSpec(image="i")),
            "both image and host_path",
        ),
        (
            Mount(
                container_path="/a",
                image=api_pb2.ImageSpec(image="i"),
                readonly=True,
                propagation=api_pb2.PROPAGATION_BIDIRECTIONAL,
            ),
            "must be private",
        ),
        (Mount(container_path="/a", image=api_pb2.ImageSpec(image="i")), "must be readonly"),
        (Mount(container_path="/a", host_path="/x", propagation=9), "propagation 9"),  # type: ignore[arg-type]
        (Mount(container_path="/a", host_path="/x", recursive_read_only=True), "not readonly"),
        (
            Mount(
                container_path="/a",
                host_path="/x",
                readonly=True,
                recursive_read_only=True,
                propagation=api_pb2.PROPAGATION_HOST_TO_CONTAINER,
            ),
            "needs private propagation",
        ),
        (
            Mount(container_path="/a", host_path="/x", uidMappings=[api_pb2.IDMapping(length=1)]),
            "need one another",
        ),
        (Mount(container_path="/a", host_path="/x", mount_options=["ro"]), "'ro' is none of"),
        (Mount(container_path="/a", host_path="/x", mount_options=["idmap"]), "'idmap' is none of"),
        (Mount(container_path="/a", host_path="/x", mount_options=["exec", "noexec"]), "contradict"),
    ],
)
def test_bad_mounts(mount: Mount, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        mounts.validate([mount], CURRENT)
    assert str(caught.value).startswith("mounts: ")


def test_what_a_handler_lacks() -> None:
    recursive = Mount(container_path="/a", host_path="/x", readonly=True, recursive_read_only=True)
    with pytest.raises(FailedPrecondition, match="^RROUnsupported: mounts: '/a'"):
        mounts.validate([recursive], HandlerFeatures(name="old", recursive_read_only=False))
    symlinks = Mount(container_path="/a", host_path="/x", mount_options=["nosymfollow"])
    with pytest.raises(FailedPrecondition, match="does not know nosymfollow"):
        mounts.validate([symlinks], HandlerFeatures(mount_options=frozenset(("noexec",))))
    mounts.validate([symlinks], HandlerFeatures())
