"""`triptych image` against a fake image daemon."""

from __future__ import annotations

import fcntl
import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from triptych_cli.image import archive

ID = "sha256:" + "ab" * 32


@pytest.fixture(autouse=True)
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    monkeypatch.setattr(archive, "EXCHANGE", directory / "exchange")
    return directory / "exchange"


def test_ls(node: Any) -> None:
    lines = node.run("image", "ls").out.splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "PINNED"]
    assert lines[1].split() == ["registry.test/app:v1", "ab" * 6, "3.00", "MiB", "yes"]
    assert node.run("image", "ls", "-q").out.strip() == ID
    assert "cd" * 6 in node.run("image", "ls", "--digests").out
    assert json.loads(node.run("image", "ls", "-o", "json").out)[0]["pinned"] is True
    assert node.run("image", "ls", "registry.test/other:v1").out.count("\n") == 1


def test_inspect_opens_the_documents_inside(node: Any) -> None:
    document = json.loads(node.run("image", "inspect", "registry.test/app:v1").out)
    assert document["image"]["id"] == ID
    assert document["info"]["config"]["Cmd"] == ["/bin/app"]
    missing = node.run("image", "inspect", "registry.test/none:v1")
    assert missing.status == 1
    assert "triptych image pull registry.test/none:v1" in missing.err


def test_pull_tells_each_stage_once_and_prints_the_id(node: Any) -> None:
    done = node.run("image", "pull", "registry.test/app:v2")
    assert done.status == 0, done.err
    assert done.out.strip() == ID
    assert [line.split()[2] for line in done.err.splitlines() if "cdcdcd" in line] == ["fetching,", "done,"]
    assert done.err.splitlines()[-1] == "registry.test/app:v2 done"
    assert node.images.requests[0].image.user_specified_image == "registry.test/app:v2"
    document = json.loads(node.run("image", "pull", "registry.test/app:v2", "-o", "json").out)
    assert document["id"] == ID and document["received_bytes"] == 1000


def test_a_pull_that_fails(node: Any) -> None:
    done = node.run("image", "pull", "-q", "registry.test/missing:v1")
    assert done.status == 1
    assert done.err.strip() == "triptych: RegistryUnavailable: registry.test/missing:v1: not found"


def test_credentials_come_from_the_environment_or_stdin(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = node.run("image", "pull", "--user", "me", "registry.test/app:v1")
    assert done.status == 2 and "there is no password" in done.err
    monkeypatch.setenv("TRIPTYCH_REGISTRY_PASSWORD", "from environment")
    assert node.run("image", "pull", "--user", "me", "registry.test/app:v1").status == 0
    assert node.images.requests[-1].auth.password == "from environment"
    monkeypatch.setattr(sys, "stdin", io.StringIO("from stdin\n"))
    assert node.run("image", "push", "--user", "me", "--password-stdin", "a:1", "b:1").out.strip() == ID
    assert node.images.requests[-1].auth.password == "from stdin"
    assert node.images.requests[-1].destination == "b:1"


def test_save_goes_through_the_exchange_directory(node: Any, tmp_path: Path, exchange: Path) -> None:
    target = tmp_path / "out.tar"
    done = node.run("image", "save", "-f", str(target), "a:1", "b:1")
    assert done.status == 0, done.err
    assert target.read_bytes() == b"archive of a:1,b:1"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(exchange.iterdir()) == []
    assert node.run("image", "save", "a:1").out == "archive of a:1"
    wrong = node.run("image", "save", "-f", "/nonexistent/out.tar", "a:1")
    assert wrong.status == 2 and "/nonexistent is not a directory" in wrong.err


def test_load_from_a_file_and_from_stdin(
    node: Any, tmp_path: Path, exchange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.tar"
    source.write_bytes(b"tar")
    assert node.run("image", "load", str(source), "--name", "x:1").out.strip() == "registry.test/loaded:v1"
    request, content = node.images.requests[-1]
    assert (request.reference, request.path, content) == ("x:1", str(source), b"tar")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert node.run("image", "load").status == 0
    assert node.images.requests[-1][1] == b"piped"
    assert list(exchange.iterdir()) == []
    missing = node.run("image", "load", str(tmp_path / "none"))
    assert missing.status == 2 and "does not exist" in missing.err


def test_save_writes_into_what_is_no_file_and_replaces_nothing(node: Any, tmp_path: Path) -> None:
    fifo, directory = tmp_path / "fifo", tmp_path / "d"
    directory.mkdir()
    os.mkfifo(fifo)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    try:
        assert node.run("image", "save", "-f", str(fifo), "a:1").status == 0
    finally:
        reader.join()
    assert found == [b"archive of a:1"]
    assert fifo.is_fifo()
    done = node.run("image", "save", "-f", str(directory), "a:1")
    assert done.status == 2 and "is a directory" in done.err
    before = os.stat("/dev/null")
    assert node.run("image", "save", "-f", "/dev/null", "a:1").status == 0
    assert os.stat("/dev/null").st_mode == before.st_mode


def test_load_from_a_pipe_by_its_name(node: Any) -> None:
    """As of `triptych image load <(curl ...)`."""
    read, write = os.pipe()
    os.write(write, b"substituted")
    os.close(write)
    try:
        assert node.run("image", "load", f"/dev/fd/{read}").status == 0
    finally:
        os.close(read)
    assert node.images.requests[-1][1] == b"substituted"


def test_what_a_killed_command_left_goes_with_the_next(node: Any, exchange: Path) -> None:
    for name in ("left", "used"):
        (exchange / f"triptych-{name}").mkdir(parents=True)
        (exchange / f"triptych-{name}/archive.tar").write_bytes(b"x")
    used = os.open(exchange / "triptych-used", os.O_RDONLY)
    try:
        fcntl.flock(used, fcntl.LOCK_EX)
        assert node.run("image", "save", "a:1").out == "archive of a:1"
    finally:
        os.close(used)
    assert [path.name for path in exchange.iterdir()] == ["triptych-used"]


def test_rm_names_what_is_not_there(node: Any) -> None:
    done = node.run("image", "rm", "registry.test/app:v1", "registry.test/none:v1")
    assert done.status == 1
    assert done.out == "removed registry.test/app:v1\n"
    assert "not on this node: registry.test/none:v1" in done.err
    assert node.images.images == {}


def test_rm_tells_all_names_that_go(node: Any) -> None:
    node.images.images["registry.test/app:v1"].repo_tags.append("registry.test/app:latest")
    done = node.run("image", "rm", "registry.test/app:v1")
    assert done.out == "removed registry.test/app:v1, also named registry.test/app:latest\n"


def test_rm_as_json(node: Any) -> None:
    done = node.run("image", "rm", "registry.test/app:v1", "-o", "json")
    assert json.loads(done.out) == [
        {"image": "registry.test/app:v1", "id": ID, "names": ["registry.test/app:v1"]}
    ]


def test_prune_and_tag(node: Any) -> None:
    assert node.run("image", "prune").out == "2.00 KiB freed\n"
    assert node.run("image", "prune", "-a", "-n").out.splitlines() == [
        "would remove registry.test/old:v1",
        "2.00 KiB would be freed",
    ]
    assert node.run("image", "tag", "a:1", "b:1").status == 0
    assert node.images.requests[-1].reference == "b:1"


def test_verify_fails_on_damage(node: Any) -> None:
    assert node.run("image", "verify").status == 0
    done = node.run("image", "verify", "-q", "damaged")
    assert done.status == 1
    assert "DAMAGED: 3 bytes differ" in done.out and "2 checked, 1 damaged" in done.out
    done = node.run("image", "verify", "odd")
    assert done.status == 0
    assert [line.split(maxsplit=2)[2] for line in done.out.splitlines()[:2]] == ["whole", "not proved"]


def test_errors_are_sentences_with_hints(node: Any) -> None:
    node.stop("image")
    done = node.run("image", "ls")
    assert done.status == 1
    assert "Traceback" not in done.err
    assert "hint: systemctl" in done.err
    assert node.run("image", "pul").status == 2
    assert 'Did you mean "pull"?' in node.run("image", "pul").err
