"""`./dev bench pull`."""

from triptych_dev.benches.pull import main
from triptych_dev.benches.report import run

if __name__ == "__main__":
    run(main)
