"""Where the parts of an installed node lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DAEMONS = ("image", "runtime", "streaming")
COMMANDS = {
    "triptych": "triptych_cli.__main__",
    "triptych-image": "triptych_image.__main__",
    "triptych-runtime": "triptych_runtime.__main__",
    "triptych-streaming": "triptych_streaming.__main__",
}
"""Each command and the module whose `main` it runs."""

DISTRIBUTIONS = ("triptych-image", "triptych-runtime", "triptych-streaming", "triptych-cli")
"""What a node needs; their dependencies in the workspace come with them."""

WRITTEN_PREFIX = "/opt/triptych"
"""The prefix that the files in deploy/ name; rewritten where another is used."""


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of an installation, each absolute as the running node sees it."""

    prefix: Path
    commands: Path
    units: Path
    tmpfiles: Path
    modules: Path
    sysctl: Path
    config: Path = Path("/etc/triptych")

    @property
    def manifest(self) -> Path:
        """The list of what was installed."""
        return self.prefix / "install.json"

    @property
    def docs(self) -> Path:
        return self.prefix / "share/doc"


CHECKOUT = Places(
    prefix=Path("/opt/triptych"),
    commands=Path("/usr/local/bin"),
    units=Path("/etc/systemd/system"),
    tmpfiles=Path("/etc/tmpfiles.d"),
    modules=Path("/etc/modules-load.d"),
    sysctl=Path("/etc/sysctl.d"),
)
"""What `./dev install` uses: nothing where the package manager writes."""

DEBIAN = Places(
    prefix=Path("/usr/lib/triptych"),
    commands=Path("/usr/bin"),
    units=Path("/usr/lib/systemd/system"),
    tmpfiles=Path("/usr/lib/tmpfiles.d"),
    modules=Path("/usr/lib/modules-load.d"),
    sysctl=Path("/usr/lib/sysctl.d"),
)
"""What the Debian package uses."""


def inside(root: Path, path: Path) -> Path:
    """Where `path` of the node lies while its root is mounted at `root`."""
    return root / path.relative_to("/")
