"""State: records in memory for every reader, and in SQLite for the next start of the daemon."""

from triptych_runtime.store.database import Database, Snapshot
from triptych_runtime.store.state import State

__all__ = ["Database", "Snapshot", "State"]
