"""What leaves the node in a support bundle, and what does not."""

from __future__ import annotations

import base64
import json
import string
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triptych_cli.bundle import gather, redact

SECRET = "s3cr3t-V4lue"


@pytest.mark.parametrize(
    "line",
    [
        f'password = "{SECRET}"',
        f"password={SECRET}",
        f"registry_password: '{SECRET}'",
        f'{{"auth": "{SECRET}"}}',
        f'"identitytoken":"{SECRET}"',
        f'headers = {{ authorization = "{SECRET}" }}',
        f'header: ["{SECRET}"]',
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {base64.b64encode(SECRET.encode()).decode()}",
        f"GET https://user:{SECRET}@registry.test/v2/",
        f"proxy http://{SECRET}@proxy.test:3128",
        f"helper --password {SECRET} --x",
        f"helper --registry-token={SECRET}",
        f"api_key: {SECRET}",
        f"client.private-key = {SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        f"opened http://127.0.0.1:10010/exec/{SECRET}",
        f"jwt eyJhbGciOiJub25l.{SECRET.replace('-', '')}.x",
    ],
)
def test_secrets_go(line: str) -> None:
    cleaned = redact.text(f"before\n{line}\nafter")
    assert SECRET not in cleaned and SECRET.replace("-", "") not in cleaned
    assert base64.b64encode(SECRET.encode()).decode() not in cleaned
    assert redact.MARK in cleaned
    assert cleaned.startswith("before\n")


@pytest.mark.parametrize(
    "line",
    [
        'image = "registry.test/app:v1"',
        "pulled image seconds=1.2 bytes=300",
        'socket = "/run/triptych/image.sock"',
        'password = ""',
        "tokens are single use",
        "sha256:abcdef0123456789",
        "10.0.0.1 node.test",
        "level = info",
    ],
)
def test_the_rest_stays(line: str) -> None:
    assert redact.text(line) == line


@given(
    st.text(string.ascii_letters + string.digits + "+/=_.-", min_size=6, max_size=40).filter(
        lambda s: s not in ("true", "false")
    )
)
def test_any_value_of_a_secret_key_goes(value: str) -> None:
    assert redact.text(f'token = "{value}"') == f'token = "{redact.MARK}"'
    document = redact.document({"outer": [{"password": value, "name": "kept"}]})
    assert document == {"outer": [{"password": redact.MARK, "name": "kept"}]}


def test_environments_lose_their_values() -> None:
    cleaned = redact.document({"env": ["A=1", "B=2"], "envs": [{"key": "C", "value": "3"}], "args": ["D=4"]})
    assert cleaned["env"] == [f"A={redact.MARK}", f"B={redact.MARK}"]
    assert cleaned["envs"] == [{"key": "C", "value": redact.MARK}]
    assert cleaned["args"] == ["D=4"]


def test_a_bundle(node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "image.toml"
    config.write_text(f'password = "{SECRET}"\nroot = "/var"\n')
    monkeypatch.setattr(gather, "FILES", (str(config),))
    monkeypatch.setattr(
        gather, "COMMANDS", {"host/uname.txt": ["uname", "-a"], "host/none.txt": ["no-such-program"]}
    )
    target = tmp_path / "bundle.tar.gz"
    done = node.run("support-bundle", "-f", str(target))
    assert done.status == 0, done.err
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        names = {member.name.partition("/")[2] for member in archive}
        content = {
            member.name.partition("/")[2]: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }
    assert {"host/uname.txt", "daemons/status.json", "daemons/pods.json", "INDEX.txt"} <= names
    whole = "\n".join(content.values())
    assert SECRET not in whole and "hunter2" not in whole
    assert 'root = "/var"' in whole
    assert "host/none.txt: no-such-program" in content["INDEX.txt"]
    status = json.loads(content["daemons/runtime-status.json"])
    assert status["info"]["config"]["registry"]["password"] == redact.MARK


def test_a_bundle_tells_scripts_where_it_is(
    node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "FILES", ())
    monkeypatch.setattr(gather, "COMMANDS", {"host/none.txt": ["no-such-program"]})
    told = json.loads(node.run("support-bundle", "-f", str(tmp_path / "b.tgz"), "-o", "json").out)
    assert told["file"] == str(tmp_path / "b.tgz")
    assert told["bytes"] == (tmp_path / "b.tgz").stat().st_size
    assert any(piece.startswith("host/none.txt: no-such-program") for piece in told["pieces"])
