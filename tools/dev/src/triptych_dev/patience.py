"""How much longer than usual things may take: on an emulated machine all of it does.

TRIPTYCH_PATIENCE is a factor for the deadlines of tests. It makes waiting longer, and no assertion weaker.
"""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("TRIPTYCH_PATIENCE", "1"))
"""1 on an ordinary machine; at least that."""
