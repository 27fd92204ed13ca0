"""A small HTTP/1.1 client made for blobs: h11 for heads, the socket itself for bodies of known length.

It costs 9 MB less memory than httpx, and bytes of plain HTTP go from socket to pipe inside the kernel.
"""

from triptych_image.registry.http.client import HttpClient, Link, Request
from triptych_image.registry.http.origin import Origin
from triptych_image.registry.http.response import Response
from triptych_image.registry.http.tls import TlsConfig

__all__ = ["HttpClient", "Link", "Origin", "Request", "Response", "TlsConfig"]
