"""Which images may be pulled: containers `policy.json` and sigstore signatures.

engine = PolicyEngine(settings.policy)
await engine.check(repository, (top.digest, manifest.digest))     # raises SignatureRejected
"""

from triptych_image.policy.engine import PolicyEngine
from triptych_image.policy.errors import InvalidPolicy, SignatureRejected
from triptych_image.policy.settings import PolicySettings

__all__ = ["InvalidPolicy", "PolicyEngine", "PolicySettings", "SignatureRejected"]
