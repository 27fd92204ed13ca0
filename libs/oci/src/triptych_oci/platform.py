"""Platforms and which manifest of an index fits a host (the order is that of containerd's platforms)."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import msgspec

from triptych_oci.documents import Descriptor, PlatformSpec
from triptych_oci.errors import InvalidPlatform, NoMatchingPlatform

_WORD: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_ARCHITECTURES: Final = {
    "i386": ("386", ""),
    "i686": ("386", ""),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
_ARM64_VARIANTS: Final = {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}
# x86-64 psABI micro-architecture levels, by the names of /proc/cpuinfo.
_X86_LEVELS: Final = (
    (2, frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"})),
    (3, frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})),
    (4, frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})),
)
_MANY: Final = 12


class Platform(msgspec.Struct, frozen=True):
    """A normalized platform: `amd64` without variant is v1, `arm64` without variant is v8."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `os/architecture[/variant]`.

        :raises InvalidPlatform: when it is something else.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_WORD.fullmatch(part) for part in parts):
            raise InvalidPlatform(f"invalid platform {text!r}: it is not os/architecture[/variant]")
        return cls.normalized(*parts)

    @classmethod
    def normalized(cls, system: str, architecture: str, variant: str | None = None) -> Self:
        """From parts in any of their spellings (x86_64, aarch64, armhf, 8)."""
        name, version = architecture.lower(), (variant or "").lower()
        name, forced = _ARCHITECTURES.get(name, (name, None))
        version = version if forced is None else forced
        if name == "amd64" and version == "v1":
            version = ""
        elif name == "arm64":
            version = _ARM64_VARIANTS.get(version, version)
        elif name == "arm":
            version = "v7" if not version else version if version.startswith("v") else f"v{version}"
        return cls({"macos": "darwin"}.get(system.lower(), system.lower()), name, version)

    @classmethod
    def of(cls, spec: PlatformSpec) -> Self:
        """From the platform of a descriptor."""
        return cls.normalized(spec.os, spec.architecture, spec.variant)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class PlatformMatcher:
    """Ranks platforms for one host: its own variant first, then older ones, then what it also runs."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._ranks = {candidate: rank for rank, candidate in reversed(list(enumerate(_vector(platform))))}

    def rank(self, platform: Platform) -> int | None:
        """0 is the best fit; None is no fit."""
        return self._ranks.get(platform)

    def best(self, manifests: Iterable[Descriptor]) -> list[Descriptor]:
        """The entries of an index that fit, best first; entries without a platform are left out."""
        ranked: list[tuple[int, int, Descriptor]] = []
        for position, entry in enumerate(manifests):
            rank = self.rank(Platform.of(entry.platform)) if entry.platform is not None else None
            if rank is not None:
                ranked.append((rank, position, entry))
        return [entry for _, _, entry in sorted(ranked, key=lambda item: item[:2])]

    def choose(self, manifests: Iterable[Descriptor], what: str) -> Descriptor:
        """The best entry of an index.

        :param what: name of the image, for the error.
        :raises NoMatchingPlatform: naming what was asked for and what is there.
        """
        entries = list(manifests)
        fitting = self.best(entries)
        if fitting:
            return fitting[0]
        there = sorted({str(Platform.of(entry.platform)) for entry in entries if entry.platform})
        listed = ", ".join(there[:_MANY]) + (", ..." if len(there) > _MANY else "")
        raise NoMatchingPlatform(
            f"{what}: no match for platform {self.platform} in manifest: it has {listed or 'none'}"
        )


@functools.cache
def host_platform() -> Platform:
    """The platform of this machine, with the x86-64 level that its CPU flags tell."""
    architecture = os.uname().machine
    variant = _x86_variant() if architecture == "x86_64" else None
    return Platform.normalized("linux", architecture, variant)


def _x86_variant() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    flags = set(line.partition(":")[2].split())
    level = 1
    for number, needed in _X86_LEVELS:
        if not needed <= flags:
            break
        level = number
    return f"v{level}"


def _vector(platform: Platform) -> list[Platform]:
    """Platforms that run on this one, best first."""
    system, variant = platform.os, platform.variant
    match platform.architecture:
        case "amd64":
            level = _number(variant) or 1
            older = [Platform(system, "amd64", f"v{n}" if n > 1 else "") for n in range(level, 0, -1)]
            first = [platform] if platform not in older else []
            return [*first, *older, Platform(system, "386")]
        case "arm":
            version = _number(variant)
            older = [Platform(system, "arm", f"v{n}") for n in range((version or 0) - 1, 4, -1)]
            return [platform, *older]
        case "arm64":
            return _arm64_vector(platform)
    return [platform]


def _arm64_vector(platform: Platform) -> list[Platform]:
    system = platform.os
    parsed = re.fullmatch(r"v([89])(?:\.(\d))?", platform.variant or "v8", re.ASCII)
    if parsed is None:
        return [platform]
    major, minor = int(parsed[1]), int(parsed[2] or 0)
    # Armv9.x includes Armv8.(x+5), up to 8.9.
    steps = [(major, range(minor, -1, -1))]
    if major == 9:
        steps.append((8, range(min(minor + 5, 9), -1, -1)))
    found = [
        Platform.normalized(system, "arm64", f"v{number}.{n}" if n else f"v{number}")
        for number, minors in steps
        for n in minors
    ]
    return [*found, *_vector(Platform(system, "arm", "v8"))]


def _number(variant: str) -> int | None:
    parsed = re.fullmatch(r"v([0-9]{1,2})", variant, re.ASCII)
    return int(parsed[1]) if parsed else None
