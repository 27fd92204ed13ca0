"""Whether an image may be used, by the configured policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from triptych_oci import Digest, Reference

from triptych_image.policy.claims import Claim, Signature, read_claims
from triptych_image.policy.document import (
    AcceptAnything,
    PolicyFile,
    Reject,
    Requirement,
    SignedBy,
    SigstoreSigned,
    key_texts,
)
from triptych_image.policy.errors import InvalidPolicy, SignatureRejected
from triptych_image.policy.identity import accepts
from triptych_image.policy.keys import Verify, load_key
from triptych_image.policy.scopes import requirements_for
from triptych_image.policy.settings import PolicySettings
from triptych_image.policy.signatures import find_signatures
from triptych_image.registry import Repository


class PolicyEngine:
    """Applies the configured policy; without one every image passes.

    The policy and its keys are read on each check, so changes need no restart.
    """

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self._file = PolicyFile()

    def reconfigure(self, settings: PolicySettings) -> None:
        """Take changed settings."""
        self.settings = settings

    async def check(self, repository: Repository, digests: Sequence[Digest]) -> None:
        """Whether the image may be used under the repository's reference; nothing to do is quick.

        :param digests: of the top manifest first, then of the one chosen for the platform; a signature of
            any of them will do, since the top one holds the digest of the other.
        :raises SignatureRejected: when the policy says no.
        :raises InvalidPolicy: when the policy or a key cannot be read, or asks for what is not supported.
        """
        if not self.settings.path:
            return
        policy = self._file.load(self.settings.path)
        requirements, place = requirements_for(policy, repository.reference)
        checker = _Checker(repository, digests, f"policy {self.settings.path}, {place}", self.settings)
        for requirement in requirements:
            await checker.check(requirement)


class _Checker:
    """One image against the requirements of one scope."""

    def __init__(
        self, repository: Repository, digests: Sequence[Digest], place: str, settings: PolicySettings
    ) -> None:
        self._repository = repository
        self._reference: Reference = repository.reference
        self._digests = list(dict.fromkeys(digests))
        self._place = place
        self._unnamed = settings.unnamed_signatures
        self._found: dict[Digest, list[Signature]] = {}

    async def check(self, requirement: Requirement) -> None:
        match requirement:
            case AcceptAnything():
                return
            case Reject():
                raise SignatureRejected(f"{self._reference}: rejected by {self._place}")
            case SignedBy():
                raise InvalidPolicy(
                    f"{self._reference}: {self._place}: GPG signatures (signedBy) are not supported",
                    hint='require {"type": "sigstoreSigned", "keyPath": "/etc/cosign.pub"} here and sign '
                    "with `cosign sign --key`, or insecureAcceptAnything where images are not signed",
                )
            case SigstoreSigned():
                await self._check_sigstore(requirement)
            case _:
                assert_never(requirement)

    async def _check_sigstore(self, requirement: SigstoreSigned) -> None:
        if requirement.unsupported:
            field = f"sigstoreSigned.{requirement.unsupported}"
            raise InvalidPolicy(
                f"{self._reference}: {self._place}: {field} is not supported",
                hint="give the public key by keyPath or keyData",
            )
        keys = [load_key(text, name) for name, text in key_texts(requirement)]
        reasons: list[str] = []
        for digest in self._digests:
            for signature in await self._signatures(digest):
                reason = self._refusal(requirement, keys, signature, digest)
                if reason is None:
                    return
                reasons.append(reason)
        why = "; ".join(dict.fromkeys(reasons)) or "it has no signature"
        raise SignatureRejected(f"{self._reference}: {self._place}: {why}")

    async def _signatures(self, digest: Digest) -> list[Signature]:
        if digest not in self._found:
            self._found[digest] = [one async for one in find_signatures(self._repository, digest)]
        return self._found[digest]

    def _refusal(
        self, requirement: SigstoreSigned, keys: list[Verify], signature: Signature, digest: Digest
    ) -> str | None:
        """Why a signature does not do, or None. The key is checked before anything is parsed."""
        if not any(verify(signature.signature, signature.signed) for verify in keys):
            return "a signature is not by a key of the policy"
        claims = read_claims(signature)
        if not claims:
            return "a signature's payload is malformed"
        matching = [claim for claim in claims if claim.digest == digest]
        if not matching:
            return f"a signature is for {claims[0].digest[:80]}, not for {digest}"
        if any(self._accepts(requirement, claim) for claim in matching):
            return None
        name = matching[0].reference
        if name is None:
            return (
                "a signature by a key of the policy names no image (sigstore bundles of cosign 3 never do; "
                "policy.unnamed_signatures in image.toml accepts them)"
            )
        return f"a signature is for the name {name[:200]!r}"

    def _accepts(self, requirement: SigstoreSigned, claim: Claim) -> bool:
        if claim.reference is None:
            return self._unnamed
        return accepts(requirement.signed_identity, self._reference, claim.reference)
