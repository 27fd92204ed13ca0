"""The other two daemons, as this one calls them."""

from triptych_runtime.clients.image import ImageClient
from triptych_runtime.clients.streaming import StreamingClient

__all__ = ["ImageClient", "StreamingClient"]
