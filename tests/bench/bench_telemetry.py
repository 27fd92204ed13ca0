"""`./dev bench telemetry`."""

from triptych_dev.bench_report import run
from triptych_dev.bench_telemetry import main

if __name__ == "__main__":
    run(main)
