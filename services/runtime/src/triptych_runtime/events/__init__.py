"""The event bus behind GetContainerEvents."""

from triptych_runtime.events.bus import EventBus, SlowSubscriber, Subscription

__all__ = ["EventBus", "SlowSubscriber", "Subscription"]
