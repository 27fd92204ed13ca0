"""The `triptych-runtime` command."""

from __future__ import annotations

from triptych_service import Definition, run

from triptych_runtime import __version__
from triptych_runtime.checks import check
from triptych_runtime.daemon import start
from triptych_runtime.settings import Settings


def main() -> None:
    """Run the daemon."""
    run(Definition("triptych-runtime", __version__, Settings, start, "/run/triptych/runtime.sock", check))


if __name__ == "__main__":
    main()
