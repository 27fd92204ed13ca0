"""The policy engine."""

from __future__ import annotations

from triptych_errors import Unimplemented
from triptych_oci import Digest

from triptych_image.policy.settings import PolicySettings
from triptych_image.registry import Repository


class PolicyEngine:
    """Applies the configured policy; without one every image passes."""

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings

    def reconfigure(self, settings: PolicySettings) -> None:
        """Take changed settings."""
        self.settings = settings

    async def check(self, repository: Repository, digests: tuple[Digest, ...]) -> None:
        """Whether the image may be used under the repository's reference.

        :param digests: of the top manifest first, then of the one chosen for the platform; a signature of
            any of them will do.
        :raises SignatureRejected: when the policy says no.
        :raises InvalidPolicy: when it cannot be read.
        """
        if self.settings.path:
            raise Unimplemented("policy.json")
