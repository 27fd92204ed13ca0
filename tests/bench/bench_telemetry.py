"""`./dev bench telemetry`."""

from triptych_dev.benches.report import run
from triptych_dev.benches.telemetry import main

if __name__ == "__main__":
    run(main)
