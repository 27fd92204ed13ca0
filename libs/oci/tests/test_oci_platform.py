"""Platforms: spelling and order of preference."""

from __future__ import annotations

import pytest
from triptych_oci import (
    Descriptor,
    Digest,
    InvalidPlatform,
    MediaType,
    NoMatchingPlatform,
    Platform,
    PlatformMatcher,
    PlatformSpec,
    host_platform,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64/v1", "linux/amd64"),
        ("Linux/AMD64/V3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_spellings(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "a/b/c/d", "linux/am d64", "linux//v1", "lin\nux/arm"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidPlatform, match="os/architecture"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("host", "order"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        (
            "linux/arm64",
            ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
        ),
        (
            "linux/arm64/v8.2",
            ["linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v8", "linux/arm/v7"],
        ),
        (
            "linux/arm64/v9.1",
            ["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64/v8.5", "linux/arm64"],
        ),
        ("linux/s390x", ["linux/s390x"]),
    ],
)
def test_order_of_preference(host: str, order: list[str]) -> None:
    matcher = PlatformMatcher(Platform.parse(host))
    ranks = [matcher.rank(Platform.parse(text)) for text in order]
    assert None not in ranks
    assert ranks == sorted(ranks, key=lambda rank: rank or 0)
    assert len(set(ranks)) == len(ranks)


@pytest.mark.parametrize(
    ("host", "other"),
    [
        ("linux/amd64", "linux/amd64/v2"),
        ("linux/arm/v6", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm64"),
        ("linux/amd64", "windows/amd64"),
        ("linux/amd64", "linux/arm64"),
        ("linux/386", "linux/amd64"),
    ],
)
def test_what_does_not_run(host: str, other: str) -> None:
    assert PlatformMatcher(Platform.parse(host)).rank(Platform.parse(other)) is None


def entry(text: str | None, name: str = "") -> Descriptor:
    platform = None
    if text:
        system, architecture, *variant = text.split("/")
        platform = PlatformSpec(architecture, system, variant=variant[0] if variant else None)
    return Descriptor(MediaType.OCI_MANIFEST, Digest.of((name or str(text)).encode()), 1, platform=platform)


def test_choice_prefers_the_best_then_the_first() -> None:
    entries = [
        entry("linux/386"),
        entry("linux/amd64", "first"),
        entry("linux/amd64", "second"),
        entry("linux/amd64/v4"),
        entry(None),
    ]
    plain = PlatformMatcher(Platform.parse("linux/amd64"))
    assert plain.choose(entries, "x") is entries[1]
    assert plain.best(entries) == [entries[1], entries[2], entries[0]]
    assert PlatformMatcher(Platform.parse("linux/amd64/v4")).choose(entries, "x") is entries[3]


def test_no_choice_tells_what_there_is() -> None:
    with pytest.raises(NoMatchingPlatform, match="app: no match for platform linux/amd64.*linux/arm64"):
        PlatformMatcher(Platform.parse("linux/amd64")).choose([entry("linux/arm64")], "app")
    with pytest.raises(NoMatchingPlatform, match="none"):
        PlatformMatcher(Platform.parse("linux/amd64")).choose([], "app")


def test_this_host() -> None:
    host = host_platform()
    assert host.os == "linux"
    assert PlatformMatcher(host).rank(Platform("linux", host.architecture)) is not None
