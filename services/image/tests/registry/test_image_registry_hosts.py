"""Host directories, durations, origins: what configuration means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from triptych_errors import Code
from triptych_image.registry import InvalidHostsConfig
from triptych_image.registry.durations import parse_duration
from triptych_image.registry.hosts import Host, HostsConfig
from triptych_image.registry.hosts_toml import ALL, Capability
from triptych_image.registry.http.origin import BadUrl, Origin
from triptych_oci import InvalidReference, Reference


def read(tmp_path: Path, domain: str) -> list[Host]:
    return HostsConfig().hosts(domain, [str(tmp_path / "certs")])


def test_nothing_configured(tmp_path: Path) -> None:
    (host,) = read(tmp_path, "quay.io")
    assert (host.base, host.capabilities, host.namespace) == ("https://quay.io/v2", ALL, "")
    assert host.is_registry
    assert not host.link.fallback
    (hub,) = read(tmp_path, "docker.io")
    assert (hub.base, hub.namespace, hub.is_registry) == ("https://registry-1.docker.io/v2", "", True)


@pytest.mark.parametrize(
    ("domain", "base", "fallback", "skip_verify"),
    [
        ("localhost:5000", "https://localhost:5000/v2", True, True),
        ("127.0.0.1:5000", "https://127.0.0.1:5000/v2", True, True),
        ("[::1]:5000", "https://[::1]:5000/v2", True, True),
        ("localhost", "https://localhost/v2", False, True),
        ("localhost:80", "http://localhost/v2", False, False),
        ("localhost:443", "https://localhost/v2", False, True),
        ("registry:5000", "https://registry:5000/v2", False, False),
    ],
)
def test_loopback_speaks_what_it_speaks(
    tmp_path: Path, domain: str, base: str, fallback: bool, skip_verify: bool
) -> None:
    (host,) = read(tmp_path, domain)
    assert (host.base, host.link.fallback, host.link.tls.skip_verify) == (base, fallback, skip_verify)
    assert host.is_registry


def test_full_file(tmp_path: Path, hosts_toml: Any) -> None:
    directory = hosts_toml(
        "docker.io",
        """
        server = "https://registry-1.docker.io"
        ca = "root.pem"
        dial_timeout = "1m30s"

        [host."https://mirror.local:8443"]
          capabilities = ["pull", "resolve"]
          ca = ["/etc/one.pem", "two.pem"]
          client = [["client.cert", "client.key"], ["both.pem", "/keys/key.pem"]]
          skip_verify = false
          [host."https://mirror.local:8443".header]
            x-one = "1"
            x-two = ["2", "3"]

        [host."http://plain.local"]
          client = ["single.pem"]

        [host."https://path.local/v2/proxy"]
          override_path = true

        [host."bare.local/some/where"]
          capabilities = ["Push", "referrers"]
        """,
    )
    mirror, plain, path, bare, server = read(tmp_path, "docker.io")
    assert mirror.base == "https://mirror.local:8443/v2"
    assert mirror.capabilities == Capability.PULL | Capability.RESOLVE
    assert mirror.link.tls.ca == ("/etc/one.pem", str(directory / "two.pem"))
    assert mirror.link.tls.pairs == (
        (str(directory / "client.cert"), str(directory / "client.key")),
        (str(directory / "both.pem"), "/keys/key.pem"),
    )
    assert mirror.link.headers == (("x-one", "1"), ("x-two", "2"), ("x-two", "3"))
    assert (mirror.namespace, mirror.is_registry) == ("docker.io", False)
    # Plain HTTP with TLS configured: TLS first; on port 80 plain HTTP is meant.
    assert plain.base == "http://plain.local/v2"
    assert plain.link.tls.pairs == ((str(directory / "single.pem"), ""),)
    assert path.base == "https://path.local/v2/proxy"
    assert bare.base == "https://bare.local/some/where/v2"
    assert bare.capabilities == Capability.PUSH | Capability.REFERRERS
    assert (server.base, server.namespace, server.is_registry) == (
        "https://registry-1.docker.io/v2",
        "",
        True,
    )
    assert (server.link.tls.ca, server.link.dial_seconds) == ((str(directory / "root.pem"),), 90.0)


def test_without_server_the_registry_itself_comes_last(tmp_path: Path, hosts_toml: Any) -> None:
    hosts_toml("quay.io", '[host."http://cache:5000"]\nskip_verify = true\n')
    cache, registry = read(tmp_path, "quay.io")
    assert (cache.base, cache.link.fallback) == ("https://cache:5000/v2", True)
    assert registry.base == "https://quay.io/v2"


def test_with_server_the_registry_itself_is_not_asked(tmp_path: Path, hosts_toml: Any) -> None:
    hosts_toml("quay.io", 'server = "https://only"\n[host."http://cache:5000"]\n')
    assert [host.name for host in read(tmp_path, "quay.io")] == ["cache:5000", "only"]
    hosts_toml("_default", 'server = "https://only"\n')
    assert [host.name for host in read(tmp_path, "gcr.io")] == ["only"]
    assert [host.name for host in read(tmp_path, "docker.io")] == ["only"]


def test_a_host_that_is_the_server_is_asked_once(tmp_path: Path, hosts_toml: Any) -> None:
    hosts_toml(
        "quay.io",
        'server = "http://one:5000"\n[host."http://one:5000"]\ncapabilities = ["pull", "resolve"]\n',
    )
    (only,) = read(tmp_path, "quay.io")
    assert (only.name, only.capabilities, only.is_registry) == ("one:5000", ALL, True)


@pytest.mark.parametrize(
    "text",
    [
        'server = "http://one"\ncapabilities = ["pull"]\n[host."http://one"]\n',
        'server = "http://one"\n[host."http://one".header]\nX-Team = "a"\n',
        'server = "http://one"\n[host."http://one"]\n[host."http://two"]\n',
        'server = "http://one"\n[host."http://one/v2/prefix"]\noverride_path = true\n',
    ],
    ids=["capabilities", "header", "order", "path"],
)
def test_a_host_that_differs_from_the_server_keeps_its_turn(
    tmp_path: Path, hosts_toml: Any, text: str
) -> None:
    hosts_toml("quay.io", text)
    hosts = read(tmp_path, "quay.io")
    assert (hosts[0].name, hosts[-1].name, len(hosts)) == ("one", "one", 2 + ("two" in text))


def test_capabilities_of_no_server_mean_nothing(tmp_path: Path, hosts_toml: Any) -> None:
    hosts_toml("quay.io", 'capabilities = ["pull"]\n[host."http://cache"]\n')
    assert [host.capabilities for host in read(tmp_path, "quay.io")] == [ALL, ALL]


@pytest.mark.parametrize("name", ["reg.local_5000_", "reg.local:5000"])
def test_directories_with_port(tmp_path: Path, hosts_toml: Any, name: str) -> None:
    hosts_toml(name, 'server = "https://found"\n')
    assert read(tmp_path, "reg.local:5000")[0].name == "found"
    assert read(tmp_path, "reg.local")[0].name == "reg.local"


def test_default_directory_comes_after_every_specific_one(tmp_path: Path) -> None:
    for root, registry in (("a", "_default"), ("b", "quay.io")):
        directory = tmp_path / root / registry
        directory.mkdir(parents=True)
        (directory / "hosts.toml").write_text(f'server = "https://{root}"\n')
    roots = [str(tmp_path / "a"), str(tmp_path / "b")]
    config = HostsConfig()
    assert config.hosts("quay.io", roots)[0].name == "b"
    (fallback,) = config.hosts("gcr.io", roots)
    assert (fallback.name, fallback.namespace, fallback.is_registry) == ("a", "gcr.io", False)


def test_docker_certificates(tmp_path: Path) -> None:
    directory = tmp_path / "certs" / "quay.io"
    directory.mkdir(parents=True)
    for name in ("ca.crt", "other.crt", "client.cert", "client.key", "both.cert", "readme.txt"):
        (directory / name).touch()
    (host,) = read(tmp_path, "quay.io")
    assert host.link.tls.ca == (str(directory / "ca.crt"), str(directory / "other.crt"))
    assert host.link.tls.pairs == (
        (str(directory / "both.cert"), ""),
        (str(directory / "client.cert"), str(directory / "client.key")),
    )
    assert host.base == "https://quay.io/v2"


def test_parsed_file_is_kept_until_it_changes(tmp_path: Path, hosts_toml: Any) -> None:
    config, roots = HostsConfig(), [str(tmp_path / "certs")]
    hosts_toml("quay.io", 'server = "https://one"\n')
    assert config.hosts("quay.io", roots)[0].name == "one"
    directory = hosts_toml("quay.io", 'server = "https://other"\n')
    assert config.hosts("quay.io", roots)[0].name == "other"
    (directory / "hosts.toml").unlink()
    assert config.hosts("quay.io", roots)[0].name == "quay.io"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("server = ", "hosts.toml"),
        ("server = 5", "server"),
        ('server = "ftp://x"', "ftp://x"),
        ('server = "https://x:99999"', "99999"),
        ("host = 5", "host"),
        ('[host]\n"https://x" = 5', "host"),
        ('[host."https://x"]\ncapabilities = ["fly"]', "capabilities: unknown capability 'fly'"),
        ('[host."https://x"]\ncapabilities = "pull"', "capabilities"),
        ('[host."https://x"]\nca = 5', "ca"),
        ('[host."https://x"]\nca = [5]', "ca"),
        ('[host."https://x"]\nclient = [["a", "b", "c"]]', "client"),
        ('[host."https://a..b"]', "host.'https://a..b'"),
        ('[host."https://x:99999"]', "host.'https://x:99999'"),
        ('[host."https://x"]\nclient = 5', "client"),
        ('[host."https://x"]\nskip_verify = "yes"', "skip_verify"),
        ('[host."https://x"]\noverride_path = 1', "override_path"),
        ('[host."https://x"]\ndial_timeout = "soon"', "dial_timeout"),
        ('[host."https://x"]\ndial_timeout = 5', "dial_timeout"),
        ('[host."https://x"]\nheader = "x"', "header"),
        ('[host."https://x".header]\na = 5', "header.a"),
    ],
)
def test_bad_files_are_named_with_their_key(tmp_path: Path, hosts_toml: Any, text: str, key: str) -> None:
    directory = hosts_toml("quay.io", text)
    with pytest.raises(InvalidHostsConfig) as caught:
        read(tmp_path, "quay.io")
    assert str(directory / "hosts.toml") in str(caught.value)
    assert key in str(caught.value)
    assert caught.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "domain", ["quay.io:99999", "localhost:99999", "[::::]:5000", "[1:2]", f"{'a' * 64}.example"]
)
def test_registries_that_cannot_be_asked(tmp_path: Path, domain: str) -> None:
    with pytest.raises(InvalidReference, match="invalid image reference"):
        read(tmp_path, Reference.parse(f"{domain}/app").domain)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), ("10us", 1e-5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1s 2s", "1x", "1ss"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://Quay.IO/v2/a?b=c d", "https://quay.io", "/v2/a?b=c%20d"),
        ("http://user:pw@[::1]:8080", "http://[::1]:8080", "/"),
        ("https://x:443/a%2Fb", "https://x", "/a%2Fb"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example", "/%C3%BC"),
    ],
)
def test_origins(url: str, origin: str, target: str) -> None:
    found = Origin.parse(url)
    assert (str(found[0]), found[1]) == (origin, target)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "//x", "ftp://x", "http://", "http://x:y", "http://[::1", "http://x" * 9999),
        *("http://a..b", "http://.a", f"http://{'a' * 64}.example", "http://a b", "http://a\0b"),
    ],
)
def test_no_origins(url: str) -> None:
    with pytest.raises(BadUrl):
        Origin.parse(url)
