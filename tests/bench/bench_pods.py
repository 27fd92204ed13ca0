"""`./dev bench pods`."""

from triptych_dev.benches.pods import main
from triptych_dev.benches.report import run

if __name__ == "__main__":
    run(main)
