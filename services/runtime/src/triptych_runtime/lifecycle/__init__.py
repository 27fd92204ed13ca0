"""Building blocks of every state change: undo stacks, joined attempts, graces, named fault points."""

from triptych_runtime.lifecycle.deadline import deadline
from triptych_runtime.lifecycle.faults import fault
from triptych_runtime.lifecycle.flights import Flights
from triptych_runtime.lifecycle.grace import Grace
from triptych_runtime.lifecycle.together import each, together
from triptych_runtime.lifecycle.undo import STEP_DEADLINE, Undo
from triptych_runtime.lifecycle.waits import Waits

__all__ = ["STEP_DEADLINE", "Flights", "Grace", "Undo", "Waits", "deadline", "each", "fault", "together"]
