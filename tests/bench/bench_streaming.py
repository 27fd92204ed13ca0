"""`./dev bench streaming`."""

from triptych_dev.benches.report import run
from triptych_dev.benches.streaming import main

if __name__ == "__main__":
    run(main)
