"""The `triptych-image` command."""

from __future__ import annotations

from triptych_service import Definition, run

from triptych_image import __version__
from triptych_image.checks import check
from triptych_image.daemon import start
from triptych_image.settings import Settings


def main() -> None:
    """Run the daemon."""
    run(Definition("triptych-image", __version__, Settings, start, "/run/triptych/image.sock", check))


if __name__ == "__main__":
    main()
