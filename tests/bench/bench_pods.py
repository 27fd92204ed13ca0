"""`./dev bench pods`."""

from triptych_dev.bench_pods import main
from triptych_dev.bench_report import run

if __name__ == "__main__":
    run(main)
