"""What leaves the node in a support bundle, and what does not."""

from __future__ import annotations

import base64
import json
import string
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triptych_cli.bundle import gather, redact, toml

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
        f"Environment=OTEL_EXPORTER_OTLP_HEADERS=x-honeycomb-team={SECRET}",
        f'Environment="OTEL_EXPORTER_OTLP_HEADERS=a=b, x-honeycomb-team={SECRET}"',
        f"Environment=A=1 \\\n# of the vault\n  B={SECRET}",
        f"Environment=REGISTRY_PASS={SECRET}",
        f"Environment=PLAIN={SECRET}",
        f'Environment="PLAIN={SECRET}',
        f"SetCredential=registry:{SECRET}",
        f"ran REGISTRY_PASS={SECRET} helper",
        f"OTEL_EXPORTER_OTLP_HEADERS=a=b, x-honeycomb-team={SECRET}",
        f'telemetry.headers.x = "{SECRET}"',
        f'telemetry.headers."x-honeycomb-team" = "{SECRET}"',
        f'x-registry-cred = ["{SECRET}"]',
        f'headers = {{"x-a" = "b}}S", y = "{SECRET}"}}',
        f'sent {{"headers": {{"x-a": {{"b": "c"}}, "y": "{SECRET}"}}}}',
        f"client-key-data: {SECRET}",
        f"users:\n- user:\n    token: |\n      abc\n      {SECRET}\n",
        f"headers:\n- x-a\n- {SECRET}",
        f"passphrase = '{SECRET}'",
        f"passphrase: correct horse {SECRET}",
        f'password = """\nabc\n{SECRET}\n"""',
        f"fetched https://store.test/blob?sv=2020&sig={SECRET}",
        f"fetched https://store.test/blob?X-Amz-Date=1&X-Amz-Signature={SECRET}&x=y",
        f"fetched https://store.test/blob?sv=1\\u0026sig={SECRET}",
        f"proxy http://user:p@ss{SECRET}@proxy.test:3128",
        f"proxy http://user:{SECRET}/p@ss@proxy.test:3128",
        f"proxy http://user:p@{SECRET}@proxy.test:3128/",
        f'["--password","{SECRET}"]',
        f'msg="ran [\\"--password\\", \\"{SECRET}\\"]"',
        f'msg="sent {{\\"password\\":\\"a b {SECRET}\\"}}"',
        f"helper -password '{SECRET} x'",
        f"# password = {SECRET}",
        f".dockerconfigjson: {SECRET}",
        f"ran DOCKER_AUTH_CONFIG={SECRET} helper",
        f"AWS_ACCESS_KEY_ID={SECRET}",
        f"bearer: {SECRET}",
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
        "pulled docker://registry.test:5000/app@sha256:abcdef",
        "fetched https://registry.test:443/v2/app/manifests/v1 bypass: true",
        "Environment",
        "headers = {}  # default",
        "what? a = b",
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


def test_names_of_variables_of_a_unit_stay() -> None:
    cleaned = redact.text(f'[Service]\nEnvironment=A=1 "B=2 {SECRET}" \\\n C=3\nRestart=always\n')
    values = " ".join(f"{name}={redact.MARK}" for name in "ABC")
    assert cleaned == f"[Service]\nEnvironment={values}\nRestart=always\n"


def test_arguments_in_a_document_lose_the_value_of_a_secret_flag() -> None:
    assert redact.document({"args": ["run", "--password", SECRET, "-v", "2", f"--token={SECRET}"]}) == {
        "args": ["run", "--password", redact.MARK, "-v", "2", f"--token={redact.MARK}"]
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", f'root = "/x"\n[telemetry.headers]\nx-honeycomb-team = "{SECRET}"\n'),
        ("a.toml", f'root = "/x"\ntelemetry.headers.x = "{SECRET}"\n'),
        ("a.toml", f'root = "/x"\n[host."https://a.test".header]\nx-registry-cred = ["{SECRET}"]\n'),
        ("a.toml", f'root = "/x"\n[host."https://user:{SECRET}@a.test"]\ncapabilities = ["pull"]\n'),
        ("a.toml", f'root = "/x"\nheaders = {{"x-a" = "b}}S", y = "{SECRET}"}}\n'),
        ("a.toml", f'root = "/x"\npassword = """\nabc\n{SECRET}\n"""\n'),
        ("a.toml", f'root = "/x"\npassword = [\n"{SECRET}",\n] # {SECRET}\n'),
        ("a.conf", f'{{"root": "/x", "args": ["--password",\n"{SECRET}"]}}'),
        ("a.conflist", f'{{"root": "/x", "plugins": [{{"headers": {{"a":\n"{SECRET}"}}}}]}}'),
        ("a.yaml", f"root: /x\nusers:\n- user:\n    client-key-data: {SECRET}\n"),
    ],
)
def test_files_keep_what_is_no_secret(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (piece,) = gather.files((f"{tmp_path}/*",))
    assert piece.problem == "" and SECRET not in piece.content
    assert redact.MARK in piece.content and "/x" in piece.content


@pytest.mark.parametrize("name", ["a.toml", "a.json"])
def test_a_file_that_cannot_be_parsed_is_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(f'[x\ny = "{SECRET}"\n')
    (piece,) = gather.files((f"{tmp_path}/*",))
    assert piece.content == "" and "left out" in piece.problem and SECRET not in piece.problem


def test_toml_is_written_as_it_was_read() -> None:
    document = tomllib.loads(
        """
        a = 1
        b = 2.5
        "c d" = "x\\u0000\\n\\"\\u007F"
        e = true
        when = 2026-01-02T03:04:05Z
        list = [[1, 2], [], [{ x = "y", z.w = 1 }]]
        [t."https://x.test:5000"]
        k = "v"
        [t.u]
        [[many]]
        n = 1
        """
    )
    assert tomllib.loads(toml.written(document)) == document


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
