"""What several plugins want, merged; who owns it, and who is refused."""

from __future__ import annotations

import pytest
from nri.v1alpha1 import nri_pb2
from nri.v1alpha1.nri_pb2 import ContainerAdjustment, ContainerUpdate, CreateContainerResponse
from triptych_dev.testing.nrifields import field_paths, filled
from triptych_errors import Code
from triptych_runtime.errors import AdjustmentRefused, PluginConflict
from triptych_runtime.nri.merge import CreateMerge, UpdateMerge
from triptych_runtime.nri.owners import Owners

FIELDS = tuple(field_paths(ContainerAdjustment.DESCRIPTOR))
RESOURCES = tuple(field_paths(nri_pb2.LinuxResources.DESCRIPTOR))
# What has no single owner: all plugins' are taken.
COLLECTED = frozenset(
    ("linux.resources.devices", "linux.rdt.remove", *(path for path in FIELDS if path.startswith("hooks.")))
)


def create(**container: object) -> CreateMerge:
    made = nri_pb2.Container(id="c", **container)  # type: ignore[arg-type]
    return CreateMerge(nri_pb2.CreateContainerRequest(pod=nri_pb2.PodSandbox(id="p"), container=made))


def adjust(merge: CreateMerge, plugin: str, adjustment: ContainerAdjustment) -> None:
    merge.apply(CreateContainerResponse(adjust=adjustment), plugin)


def only(path: str) -> ContainerAdjustment:
    """An adjustment of one field."""
    made = ContainerAdjustment()
    filled(made, path)
    return made


# Every field


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_is_merged_and_owned(path: str) -> None:
    merge = create()
    adjust(merge, "10-a", only(path))
    assert merge.response().adjust == only(path)
    if path not in ("linux.resources.devices", "linux.rdt.remove"):
        assert merge.owners.to_message().owners["c"].ListFields()


@pytest.mark.parametrize("path", FIELDS)
def test_the_next_plugin_sees_it(path: str) -> None:
    rdt = nri_pb2.LinuxRdt(clos_id=nri_pb2.OptionalString(value="asked"))
    merge = create(linux=nri_pb2.LinuxContainer(rdt=rdt))
    before = merge.request.SerializeToString(deterministic=True)
    adjust(merge, "10-a", only(path))
    # A container has no field for its memory policy.
    seen = merge.request.SerializeToString(deterministic=True) != before
    assert seen == (path != "linux.memory_policy")


@pytest.mark.parametrize("path", sorted({*FIELDS} - COLLECTED))
def test_two_plugins_contradict(path: str) -> None:
    merge = create()
    adjust(merge, "10-a", only(path))
    with pytest.raises(PluginConflict, match=r'^plugins "10-a" and "20-b" both tried to set (x of )?\w+$'):
        adjust(merge, "20-b", only(path))
    with pytest.raises(PluginConflict):
        adjust(merge, "10-a", only(path))


@pytest.mark.parametrize("path", sorted(COLLECTED - {"linux.rdt.remove"}))
def test_collected_from_all(path: str) -> None:
    merge = create()
    adjust(merge, "10-a", only(path))
    adjust(merge, "20-b", only(path))
    held: object = merge.response().adjust
    for name in path.split("."):
        held = getattr(held, name)
    assert len(held) == 2  # type: ignore[arg-type]


def test_every_field_has_an_owner() -> None:
    merge = create()
    for path in FIELDS:
        adjust(merge, "10-a", only(path))
    owned = merge.owners.to_message().owners["c"]
    assert {*owned.simple, *owned.compound} == {*nri_pb2.Field.values()} - {nri_pb2.Field.Value("None")}


# Removal


def test_removed_and_set_by_another() -> None:
    merge = create(mounts=[nri_pb2.Mount(destination="/m", source="/asked")])
    for plugin, source in (("10-a", "/a"), ("20-b", "/b")):
        mounts = [nri_pb2.Mount(destination="-/m"), nri_pb2.Mount(destination="/m", source=source)]
        adjust(merge, plugin, ContainerAdjustment(mounts=mounts))
    assert [m.source for m in merge.response().adjust.mounts] == ["/b"]
    assert [m.source for m in merge.request.container.mounts] == ["/b"]
    assert merge.owners.owner("c", (nri_pb2.Field.Mounts, "/m")) == "20-b"


def test_a_map_of_messages() -> None:
    def change(*keys: str) -> ContainerAdjustment:
        devices = {key: nri_pb2.LinuxNetDevice(name="" if key[0] == "-" else "data0") for key in keys}
        return ContainerAdjustment(linux=nri_pb2.LinuxContainerAdjustment(net_devices=devices))

    merge = create()
    adjust(merge, "10-a", change("eth1"))
    adjust(merge, "20-b", change("-eth1", "-eth2"))
    assert merge.response().adjust == change("-eth1", "-eth2")
    assert not merge.request.container.linux.net_devices


@pytest.mark.parametrize("part", ["annotations", "sysctl"])
def test_removed_from_a_map_and_set_by_another(part: str) -> None:
    merge = create()

    def change(**entries: str) -> ContainerAdjustment:
        entries = {key.replace("minus_", "-"): value for key, value in entries.items()}
        if part == "annotations":
            return ContainerAdjustment(annotations=entries)
        return ContainerAdjustment(linux=nri_pb2.LinuxContainerAdjustment(sysctl=entries))

    adjust(merge, "10-a", change(k="a", other="a"))
    with pytest.raises(PluginConflict, match=f"k of {part.capitalize()}"):
        adjust(merge, "20-b", change(k="b"))
    adjust(merge, "30-c", change(minus_k="", k="c"))
    assert merge.response().adjust == change(k="c", other="a")


def test_a_removal_alone_is_told_and_owned() -> None:
    merge = create(env=["A=asked", "B=asked"])
    removal = ContainerAdjustment(env=[nri_pb2.KeyValue(key="-A")])
    adjust(merge, "10-a", removal)
    assert merge.response().adjust == removal
    assert merge.request.container.env == ["B=asked"]
    # Nobody's value was removed: another may set one, and what is left of the removal goes.
    setting = ContainerAdjustment(env=[nri_pb2.KeyValue(key="A", value="b")])
    adjust(merge, "20-b", setting)
    assert merge.response().adjust == setting
    assert merge.request.container.env == ["B=asked", "A=b"]
    # Now one was: whoever removes it holds the place against the next.
    adjust(merge, "30-c", removal)
    assert merge.response().adjust == removal
    with pytest.raises(PluginConflict, match='"30-c" and "40-d" both tried to set A of Env'):
        adjust(merge, "40-d", setting)


def test_namespaces_are_owned_when_removed() -> None:
    def change(kind: str) -> ContainerAdjustment:
        spaces = [nri_pb2.LinuxNamespace(type=kind, path="/ns")]
        return ContainerAdjustment(linux=nri_pb2.LinuxContainerAdjustment(namespaces=spaces))

    merge = create(linux=nri_pb2.LinuxContainer(namespaces=[nri_pb2.LinuxNamespace(type="ipc")]))
    adjust(merge, "10-a", change("-ipc"))
    assert not merge.request.container.linux.namespaces
    assert merge.response().adjust == change("-ipc")
    with pytest.raises(PluginConflict, match="ipc of Namespace"):
        adjust(merge, "20-b", change("ipc"))


def test_arguments() -> None:
    merge = create(args=["asked"])
    adjust(merge, "10-a", ContainerAdjustment(args=["a", "1"]))
    assert list(merge.request.container.args) == ["a", "1"]
    adjust(merge, "20-b", ContainerAdjustment(args=["", "b"]))
    assert list(merge.response().adjust.args) == list(merge.request.container.args) == ["b"]
    adjust(merge, "30-c", ContainerAdjustment(args=[""]))
    assert list(merge.request.container.args) == ["asked"]
    assert not merge.response().adjust.args


def test_rdt_removed_and_set_by_another() -> None:
    def change(**rdt: object) -> ContainerAdjustment:
        wanted = nri_pb2.LinuxRdt(**rdt)  # type: ignore[arg-type]
        return ContainerAdjustment(linux=nri_pb2.LinuxContainerAdjustment(rdt=wanted))

    merge = create()
    adjust(merge, "10-a", change(clos_id=nri_pb2.OptionalString(value="a")))
    adjust(merge, "20-b", change(remove=True, enable_monitoring=nri_pb2.OptionalBool(value=False)))
    assert merge.response().adjust == change(
        remove=True, enable_monitoring=nri_pb2.OptionalBool(value=False)
    )
    with pytest.raises(PluginConflict, match='"20-b" and "30-c" both tried to set RdtClosID'):
        adjust(merge, "30-c", change(clos_id=nri_pb2.OptionalString(value="c")))


# Of the container


def test_a_value_of_zero_is_one() -> None:
    merge = create(linux=nri_pb2.LinuxContainer(oom_score_adj=nri_pb2.OptionalInt(value=5)))
    zero = ContainerAdjustment()
    zero.linux.oom_score_adj.value = 0
    adjust(merge, "10-a", zero)
    assert merge.response().adjust.linux.HasField("oom_score_adj")
    assert merge.request.container.linux.oom_score_adj.value == 0


def test_validators_get_the_container_as_it_was() -> None:
    merge = create(annotations={"a": "1"})
    adjust(merge, "10-a", ContainerAdjustment(annotations={"b": "2"}))
    told = merge.validation([nri_pb2.PluginInstance(name="a", index="10")])
    assert dict(told.container.annotations) == {"a": "1"}
    assert dict(merge.request.container.annotations) == {"a": "1", "b": "2"}
    assert dict(told.adjust.annotations) == {"b": "2"}
    assert told.owners.owners["c"].compound[nri_pb2.Field.Annotations].owners["b"] == "10-a"
    assert [plugin.name for plugin in told.plugins] == ["a"]


def test_hooks_have_all_owners() -> None:
    merge = create()
    for plugin in ("10-a", "20-b"):
        adjust(merge, plugin, only("hooks.poststop"))
    assert merge.owners.to_message().owners["c"].simple[nri_pb2.Field.OciHooks] == "10-a,20-b"


def test_conflicts_are_failed_preconditions() -> None:
    owners = Owners()
    owners.claim("c", [(nri_pb2.Field.MemLimit, None)], "10-a")
    with pytest.raises(PluginConflict) as raised:
        owners.claim("c", [(nri_pb2.Field.CPUShares, None), (nri_pb2.Field.MemLimit, None)], "20-b")
    assert str(raised.value) == 'plugins "10-a" and "20-b" both tried to set MemLimit'
    assert raised.value.code is Code.FAILED_PRECONDITION
    assert owners.owner("c", (nri_pb2.Field.CPUShares, None)) is None


# Updates


def update(container: str, path: str, *, ignore_failure: bool = False) -> ContainerUpdate:
    made = ContainerUpdate(container_id=container, ignore_failure=ignore_failure)
    filled(made.linux.resources, path)
    return made


def memory(container: str, limit: int, *, ignore_failure: bool = False) -> ContainerUpdate:
    made = ContainerUpdate(container_id=container, ignore_failure=ignore_failure)
    made.linux.resources.memory.limit.value = limit
    return made


def test_a_container_being_created_cannot_be_updated() -> None:
    with pytest.raises(AdjustmentRefused, match='plugin "10-a" asked for an update of container c'):
        create().apply(CreateContainerResponse(update=[memory("c", 1)]), "10-a")


def test_updates_of_others_at_creation() -> None:
    merge = create()
    merge.apply(CreateContainerResponse(update=[memory("d", 1)]), "10-a")
    merge.apply(CreateContainerResponse(update=[update("d", "cpu.shares")]), "20-b")
    both = memory("d", 1)
    both.linux.resources.cpu.shares.value = 1
    assert list(merge.response().update) == [both]
    with pytest.raises(PluginConflict, match='"10-a" and "30-c" both tried to set MemLimit'):
        merge.apply(CreateContainerResponse(update=[memory("d", 2)]), "30-c")


@pytest.mark.parametrize("path", sorted({*RESOURCES} - {"devices"}))
def test_every_resource_can_be_updated(path: str) -> None:
    merge = UpdateMerge(None)
    merge.apply(nri_pb2.StopContainerResponse(update=[update("d", path)]), "10-a")
    assert list(merge.response().update) == [update("d", path)]
    with pytest.raises(PluginConflict):
        merge.apply(nri_pb2.StopContainerResponse(update=[update("d", path)]), "20-b")


def test_a_failure_to_be_ignored() -> None:
    merge = UpdateMerge(None)
    merge.apply(nri_pb2.StopContainerResponse(update=[memory("d", 1, ignore_failure=True)]), "10-a")
    assert merge.response().update[0].ignore_failure
    both = memory("d", 2, ignore_failure=True)
    both.linux.resources.cpu.shares.value = 7
    merge.apply(nri_pb2.StopContainerResponse(update=[both]), "20-b")
    assert list(merge.response().update) == [memory("d", 1, ignore_failure=True)]
    # Nothing of what was ignored is owned; and one that may not fail makes the whole so.
    merge.apply(nri_pb2.StopContainerResponse(update=[update("d", "cpu.shares")]), "30-c")
    assert not merge.response().update[0].ignore_failure


def test_the_requested_container_comes_last_and_whole() -> None:
    request = nri_pb2.UpdateContainerRequest(container=nri_pb2.Container(id="c"))
    request.linux_resources.cpu.shares.value = 100
    merge = UpdateMerge(request)
    assert not merge.response().update
    merge.apply(nri_pb2.UpdateContainerResponse(update=[memory("c", 1)]), "10-a")
    assert merge.request is not None
    assert merge.request.linux_resources.memory.limit.value == 1
    merge.apply(nri_pb2.UpdateContainerResponse(update=[memory("d", 2)]), "20-b")
    other, requested = merge.response().update
    assert (other.container_id, requested.container_id) == ("d", "c")
    assert requested.linux.resources == merge.request.linux_resources
    assert requested.linux.resources.cpu.shares.value == 100
