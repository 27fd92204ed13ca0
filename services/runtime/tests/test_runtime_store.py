"""Records on disk and in memory."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from runtime.v1 import api_pb2
from triptych_runtime.errors import AmbiguousId, ContainerNotFound, EmptyId, SandboxNotFound, StoreFailed
from triptych_runtime.model import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord, User
from triptych_runtime.store import Database, Snapshot, State


def sandbox(identity: str, phase: SandboxPhase = SandboxPhase.READY) -> SandboxRecord:
    config = api_pb2.PodSandboxConfig(hostname="h", labels={"a": "b"})
    config.metadata.name, config.metadata.uid = "pod-" + identity, "u"
    return SandboxRecord(
        id=identity, phase=phase, config=config, handler="", created_at=5, namespaces={"net": "/x"}
    )


def container(identity: str, owner: str, phase: ContainerPhase = ContainerPhase.CREATED) -> ContainerRecord:
    config = api_pb2.ContainerConfig()
    config.metadata.name = "c-" + identity
    config.envs.add(key="K", value=b"\xff\xfe")
    mount = api_pb2.Mount(container_path="/a", host_path="/b")
    return ContainerRecord(
        id=identity,
        sandbox_id=owner,
        phase=phase,
        config=config,
        handler="crun",
        created_at=6,
        user=User(1, 2, (3,)),
        mounts=(mount,),
        resources=api_pb2.LinuxContainerResources(cpu_shares=7),
    )


async def test_round_trip(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    assert (await database.open()).sandboxes == []
    state = State(database)
    pod, one = sandbox("1" * 64), container("2" * 64, "1" * 64)
    await state.save(pod)
    await state.save(one)
    await state.save(msgspec.structs.replace(one, exit_code=3))
    await database.set_meta("boot_id", "b")
    await database.close()

    again = Database(tmp_path / "state.db")
    snapshot = await again.open()
    await again.close()
    assert snapshot.boot_id == "b"
    assert snapshot.sandboxes == [pod]
    assert snapshot.containers == [msgspec.structs.replace(one, exit_code=3)]
    assert snapshot.containers[0].config.envs[0].value == b"\xff\xfe"


async def test_look_up(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    await database.open()
    state = State(database)
    pods = [sandbox("aa" + "0" * 62), sandbox("ab" + "0" * 62), sandbox("c" * 64, SandboxPhase.CREATING)]
    one = container("d" * 64, pods[0].id)
    for pod in pods:
        await state.save(pod)
    await state.save(one)
    assert state.sandbox("aa") is pods[0]
    with pytest.raises(AmbiguousId):
        state.sandbox("a")
    with pytest.raises(SandboxNotFound):
        state.sandbox("c" * 64)
    with pytest.raises(EmptyId):
        state.container("")
    assert state.containers_of(pods[0].id) == [one]
    assert state.by_key(one.key) == one.id
    await state.delete(one)
    assert state.containers_of(pods[0].id) == []
    assert state.by_key(one.key) is None
    with pytest.raises(ContainerNotFound):
        state.container("d")
    assert [s.id for s in state.visible_sandboxes()] == [pods[0].id, pods[1].id]
    await database.close()


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file grows meanwhile beyond the few bytes that an inode has room for."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)


async def closed_database(path: Path) -> None:
    """A database with one sandbox that was written and closed."""
    database = Database(path)
    await database.open()
    await database.save(sandbox("1" * 64))
    await database.close()


async def database_of(path: Path) -> Snapshot:
    """What a start reads."""
    database = Database(path)
    snapshot = await database.open()
    await database.close()
    return snapshot


async def test_a_record_that_cannot_be_read_waits_for_the_version_that_can(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await closed_database(path)
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("INSERT INTO sandboxes VALUES ('bad', x'00')")
        raw.commit()
    for _ in range(2):
        snapshot = await database_of(path)
        assert [s.id for s in snapshot.sandboxes] == ["1" * 64]
        assert snapshot.unreadable == {"bad"}
        assert snapshot.incomplete


async def test_a_damaged_record_is_quarantined_when_it_is_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await closed_database(path)
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("INSERT INTO sandboxes VALUES ('bad', x'00')")
        raw.commit()
    database = Database(path)
    await database.quarantine((await database.open()).unreadable)
    await database.close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT kind, id FROM quarantine").fetchall() == [("sandboxes", "bad")]
    snapshot = await database_of(path)
    assert [s.id for s in snapshot.sandboxes] == ["1" * 64]
    assert not snapshot.incomplete


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database" * 500)
    database = Database(path)
    snapshot = await database.open()
    assert snapshot.containers == []
    assert snapshot.incomplete
    await database.save(sandbox("1" * 64))
    await database.close()
    [aside] = tmp_path.glob("state.damaged-*")
    assert (await database_of(path)).incomplete
    aside.rename(tmp_path / "state.damaged-another-boot-1")
    assert not (await database_of(path)).incomplete


async def test_a_file_with_a_damaged_page_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await closed_database(path)
    with contextlib.closing(sqlite3.connect(path)) as raw:
        (size,) = raw.execute("PRAGMA page_size").fetchone()
        (page,) = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'containers'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    assert (await database_of(path)).sandboxes == []
    assert len(list(tmp_path.glob("state.damaged-*"))) == 1


async def test_a_file_that_cannot_be_opened_is_not_taken_for_damaged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await closed_database(path)
    before = path.read_bytes()
    (tmp_path / "state.db-shm").symlink_to("nowhere")
    with pytest.raises(StoreFailed, match="unable to open"):
        await Database(path).open()
    (tmp_path / "state.db-shm").unlink()
    assert path.read_bytes() == before
    assert [s.id for s in (await database_of(path)).sandboxes] == ["1" * 64]


async def test_on_a_full_disk_records_are_read_and_written_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await closed_database(path)
    database = Database(path)
    with full_disk():
        snapshot = await database.open()
        assert [s.id for s in snapshot.sandboxes] == ["1" * 64]
        assert not snapshot.incomplete
        await database.set_meta("boot_id", "this")
        with pytest.raises(StoreFailed):
            await database.save(sandbox("2" * 64))
    await database.save(sandbox("3" * 64))
    await database.close()
    snapshot = await database_of(path)
    assert snapshot.boot_id == "this"
    assert [s.id for s in snapshot.sandboxes] == ["1" * 64, "3" * 64]


async def test_what_happens_on_a_full_disk_is_written_in_order_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await closed_database(path)
    database = Database(path)
    with full_disk():
        await database.open()
        assert not await database.note(sandbox("1" * 64, SandboxPhase.NOT_READY))
        assert not await database.note(sandbox("2" * 64))
        assert not await database.note(sandbox("1" * 64, SandboxPhase.REMOVING))
        await database.delete(sandbox("2" * 64))
    assert await database.note(container("3" * 64, "1" * 64))
    await database.close()
    snapshot = await database_of(path)
    assert [(s.id, s.phase) for s in snapshot.sandboxes] == [("1" * 64, SandboxPhase.REMOVING)]
    assert [c.id for c in snapshot.containers] == ["3" * 64]


async def test_what_is_owed_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await closed_database(path)
    database = Database(path)
    with full_disk():
        await database.open()
        await database.delete(sandbox("1" * 64))
    await database.close()
    assert (await database_of(path)).sandboxes == []
