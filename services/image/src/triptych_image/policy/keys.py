"""Public keys and what they signed; `cryptography` is imported on first use only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from triptych_image.policy.errors import InvalidPolicy

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

Verify = Callable[[bytes, bytes], bool]
"""Whether a signature (first) over data (second) is by the key."""


def load_key(text: bytes, name: str) -> Verify:
    """A PEM public key: ECDSA, Ed25519 or RSA (PKCS #1 v1.5), with SHA-256 as cosign signs.

    :raises InvalidPolicy: naming the key, when it is none of these.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidPolicy(f"key {name}: not a public key in PEM form") from None
    check = _checker(key, name)

    def verify(signature: bytes, data: bytes) -> bool:
        try:
            check(signature, data)
        except InvalidSignature:
            return False
        return True

    return verify


def _checker(key: PublicKeyTypes, name: str) -> Callable[[bytes, bytes], None]:
    """The key's own check, which raises InvalidSignature."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    if isinstance(key, ec.EllipticCurvePublicKey):
        return lambda signature, data: key.verify(signature, data, ec.ECDSA(SHA256()))
    if isinstance(key, ed25519.Ed25519PublicKey):
        return lambda signature, data: key.verify(signature, data)
    if isinstance(key, rsa.RSAPublicKey):
        return lambda signature, data: key.verify(signature, data, padding.PKCS1v15(), SHA256())
    raise InvalidPolicy(f"key {name}: keys of type {type(key).__name__} are not supported")
