"""`triptych-streaming`."""

from __future__ import annotations

from typing import NoReturn

from triptych_streaming import handover

VERSION = "0.1.0"


def main() -> NoReturn:
    """Run the daemon; see `handover` for why its imports wait."""
    handover.stand_in()
    from triptych_service import Definition, run

    from triptych_streaming.checks import check
    from triptych_streaming.daemon import start
    from triptych_streaming.settings import Settings

    run(Definition("triptych-streaming", VERSION, Settings, start, "/run/triptych/streaming.sock", check))


if __name__ == "__main__":
    main()
