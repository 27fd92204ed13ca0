"""`./dev bench pull`."""

from triptych_dev.bench_pull import main
from triptych_dev.bench_report import run

if __name__ == "__main__":
    run(main)
