"""The directory of waiting sessions."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from triptych_streaming.errors import TokenUnknown, TooManySessions
from triptych_streaming.protocol.channels import StreamSet
from triptych_streaming.records import ExecSession, PortForwardSession, Target
from triptych_streaming.store import SessionStore

FORWARD = PortForwardSession(Target(pod_sandbox_id="p1"), "/run/netns/x", (80, 443))


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path)


def test_a_session_survives_its_wait(store: SessionStore, tmp_path: Path) -> None:
    session = ExecSession(
        Target(container_id="c", pod_name="p"),
        StreamSet(stdin=True, tty=True),
        ("crun", "--root", "/x"),
        b'{"args": ["\xc3\xa9"], "env": ["A=\\u0000"]}',
        ("--cgroup", "y"),
        42,
        99,
    )
    opened = store.open(session, lifetime=1000, limit=10)
    other = SessionStore(tmp_path)
    assert other.exists(opened.token)
    assert other.claim(opened.token).session == session
    assert not store.exists(opened.token)
    with pytest.raises(TokenUnknown):
        store.claim(opened.token)
    assert [files for _, _, files in os.walk(tmp_path) if files] == []


def test_one_of_many_claims_wins(tmp_path: Path) -> None:
    stores = [SessionStore(tmp_path) for _ in range(8)]
    for _ in range(50):
        token = stores[0].open(FORWARD, lifetime=1000, limit=10).token
        won: list[str] = []

        def claim(store: SessionStore, token: str = token, won: list[str] = won) -> None:
            try:
                won.append(store.claim(token).id)
            except TokenUnknown:
                return

        threads = [threading.Thread(target=claim, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


def test_expired_ones_are_gone_before_they_are_swept(store: SessionStore) -> None:
    opened = store.open(FORWARD, lifetime=0, limit=10)
    assert not store.exists(opened.token) and store.waiting() == []
    with pytest.raises(TokenUnknown):
        store.claim(opened.token)
    again = store.open(FORWARD, lifetime=0, limit=10)
    alive = store.open(FORWARD, lifetime=1000, limit=10)
    assert store.sweep() == 1 and not store.exists(again.token)
    assert store.exists(alive.token) and [each.id for each in store.waiting()] == [alive.waiting.id]


def test_the_limit_counts_the_living(store: SessionStore, tmp_path: Path) -> None:
    for _ in range(3):
        store.open(FORWARD, lifetime=1000, limit=3)
    with pytest.raises(TooManySessions, match="3 are allowed"):
        store.open(FORWARD, lifetime=1000, limit=3)
    os.utime(next((tmp_path / "waiting").iterdir()), (1, 1))
    store.open(FORWARD, lifetime=1000, limit=3)


def test_what_a_crash_left_is_swept(store: SessionStore, tmp_path: Path) -> None:
    (tmp_path / "aside" / "half").write_bytes(b"{")
    (tmp_path / "waiting" / "broken").write_bytes(b"{")
    future = time.time() + 100
    os.utime(tmp_path / "waiting" / "broken", (future, future))
    assert store.waiting() == []
    assert store.sweep() == 0
    for path in (tmp_path / "aside" / "half", tmp_path / "waiting" / "broken"):
        os.utime(path, (1, 1))
    assert store.sweep() == 2


def test_a_file_that_cannot_be_read_is_no_session(store: SessionStore, tmp_path: Path) -> None:
    opened = store.open(FORWARD, lifetime=1000, limit=10)
    (path,) = (tmp_path / "waiting").iterdir()
    path.write_bytes(b"not json")
    with pytest.raises(TokenUnknown):
        store.claim(opened.token)
    assert list((tmp_path / "aside").iterdir()) == []


def test_strange_tokens_lead_nowhere(store: SessionStore) -> None:
    for token in ("", "../waiting", "x" * 10_000, "\0"):
        assert not store.exists(token)
        with pytest.raises(TokenUnknown):
            store.claim(token)
