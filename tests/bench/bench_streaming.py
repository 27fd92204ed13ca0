"""`./dev bench streaming`."""

from triptych_dev.bench_report import run
from triptych_dev.bench_streaming import main

if __name__ == "__main__":
    run(main)
