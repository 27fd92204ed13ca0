"""policy.json and sigstore signatures against an in-process registry."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from triptych_errors import Code
from triptych_image.policy import InvalidPolicy, PolicyEngine, PolicySettings, SignatureRejected
from triptych_image.policy.document import parse_policy
from triptych_image.policy.scopes import candidates, requirements_for
from triptych_oci import Digest, MediaType, Reference

ACCEPT = {"type": "insecureAcceptAnything"}
REJECT = {"type": "reject"}
ANNOTATION = "dev.cosignproject.cosign/signature"


class Signer:
    """A key pair of some kind, signing as cosign does."""

    def __init__(self, kind: str) -> None:
        self._sign: Callable[[bytes], bytes]
        if kind == "ecdsa":
            curve = ec.generate_private_key(ec.SECP256R1())
            self._sign = lambda data: curve.sign(data, ec.ECDSA(SHA256()))
            public = curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        elif kind == "ed25519":
            edwards = ed25519.Ed25519PrivateKey.generate()
            self._sign = edwards.sign
            public = edwards.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        else:
            modulus = rsa.generate_private_key(65537, 2048)
            self._sign = lambda data: modulus.sign(data, padding.PKCS1v15(), SHA256())
            public = modulus.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public: bytes = public

    @property
    def key_data(self) -> str:
        return base64.b64encode(self.public).decode()

    def sign(self, payload: bytes) -> str:
        return base64.b64encode(self._sign(payload)).decode()

    def bundle(self, statement: bytes, /, **envelope: Any) -> dict[str, Any]:
        """A bundle v0.3 as `cosign sign --key` of version 3 writes it."""
        kind = b"application/vnd.in-toto+json"
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(statement), statement)
        return {
            "mediaType": MediaType.SIGSTORE_BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "aGludA=="}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode(),
                "payloadType": kind.decode(),
                "signatures": [{"sig": self.sign(signed), "keyid": ""}],
                **envelope,
            },
        }


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer("ecdsa")


def payload_of(reference: str, digest: str, kind: str = "cosign container image signature") -> bytes:
    return json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": digest},
                "type": kind,
            },
            "optional": {"creator": "x"},
        }
    ).encode()


def attach(
    registry: Any, image: str, *signed: tuple[bytes, str], way: str = "tag", extra: Any = None
) -> None:
    """Store payloads with their signatures beside an image."""
    layers = [
        registry.describe(payload, MediaType.COSIGN_SIGNATURE) | {"annotations": {ANNOTATION: signature}}
        for payload, signature in signed
    ]
    if way == "tag":
        registry.add_manifest(artifact(registry, *(extra or []), *layers), image.replace(":", "-") + ".sig")
    else:
        refer(registry, image, (artifact(registry, *(extra or []), *layers), MediaType.COSIGN_ARTIFACT, {}))


def artifact(registry: Any, *layers: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": registry.describe(b"{}", MediaType.OCI_EMPTY),
        "layers": [*layers],
    }


def refer(registry: Any, image: str, *artifacts: tuple[dict[str, Any], str, dict[str, str]]) -> None:
    """Let artifacts of some type, with annotations, refer to an image by the tag of its digest."""
    entries = []
    for manifest, kind, notes in artifacts:
        digest = registry.add_manifest(manifest)
        size = len(registry.manifests[digest][1])
        entry = {"mediaType": MediaType.OCI_MANIFEST, "digest": digest, "size": size, "artifactType": kind}
        entries.append(entry | ({"annotations": notes} if notes else {}))
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}
    registry.add_manifest(index, image.replace(":", "-"), media_type=MediaType.OCI_INDEX)


SIGN = "https://sigstore.dev/cosign/sign/v1"


def statement_of(digest: str, name: str = "", predicate: str = SIGN) -> bytes:
    algorithm, _, value = digest.partition(":")
    subject = {"digest": {algorithm: value}, "annotations": {}} | ({"name": name} if name else {})
    kind = "https://in-toto.io/Statement/v1"
    return json.dumps(
        {"_type": kind, "subject": [subject], "predicateType": predicate, "predicate": {}}
    ).encode()


def attach_bundles(registry: Any, image: str, *bundles: Any, predicate: str = SIGN) -> None:
    """Store bundles beside an image as cosign 3 does: one artifact each."""
    kind = MediaType.SIGSTORE_BUNDLE
    annotations = {"dev.sigstore.bundle.content": "dsse-envelope"}
    if predicate:
        annotations["dev.sigstore.bundle.predicateType"] = predicate
    texts = [bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode() for bundle in bundles]
    manifests = [artifact(registry, registry.describe(text, kind)) for text in texts]
    refer(registry, image, *((manifest, kind, annotations) for manifest in manifests))


Check = Callable[..., Any]


@pytest.fixture
def check(tmp_path: Path, client_for: Any) -> Check:
    """Check a reference under a policy."""

    async def run(reference: str, policy: Any, *digests: Digest, **settings: bool) -> None:
        path = tmp_path / "policy.json"
        path.write_text(policy if isinstance(policy, str) else json.dumps(policy))
        engine = PolicyEngine(PolicySettings(path=str(path), **settings))
        async with client_for().repository(Reference.parse(reference)) as repository:
            await engine.check(repository, digests or (Digest.of(b""),))

    return run


def sigstore(signer: Signer, identity: str = "matchRepository", **more: Any) -> dict[str, Any]:
    return {
        "default": [
            {
                "type": "sigstoreSigned",
                "keyData": signer.key_data,
                "signedIdentity": {"type": identity},
                **more,
            }
        ]
    }


async def test_no_policy_accepts_without_a_request(client_for: Any) -> None:
    engine = PolicyEngine(PolicySettings())
    async with client_for().repository(Reference.parse("127.0.0.1:1/app")) as repository:
        await engine.check(repository, [Digest.of(b"")])


async def test_accept_and_reject_by_scope(check: Check) -> None:
    policy = {"default": [REJECT], "transports": {"docker": {"quay.io/good": [ACCEPT]}}}
    await check("quay.io/good/app", policy)
    with pytest.raises(SignatureRejected) as caught:
        await check("quay.io/goods/app", policy)
    assert str(caught.value).startswith("SignatureValidationFailed: quay.io/goods/app:latest: rejected by")
    assert caught.value.code is Code.PERMISSION_DENIED
    with pytest.raises(SignatureRejected):
        await check("quay.io/good", {"default": [ACCEPT, REJECT]})


@pytest.mark.parametrize(
    ("scope", "matches"),
    [
        ("reg.io/a/b:v1", True),
        ("reg.io/a/b", True),
        ("reg.io/a", True),
        ("reg.io", True),
        ("*.io", True),
        ("", True),
        ("reg.io/a/b:v2", False),
        ("reg.io/a/bc", False),
        ("*.reg.io", False),
        ("io", False),
    ],
)
def test_scopes(scope: str, matches: bool) -> None:
    document = {"default": [REJECT], "transports": {"docker": {scope: [ACCEPT]}, "dir": {"": [ACCEPT]}}}
    policy = parse_policy(json.dumps(document).encode(), "x")
    _, place = requirements_for(policy, Reference.parse("reg.io/a/b:v1"))
    assert (place != "default") is matches


def test_scopes_from_the_most_specific() -> None:
    digest = Digest.of(b"")
    assert list(candidates(Reference.parse(f"sub.reg.io:5000/a/b:v1@{digest}"))) == [
        f"sub.reg.io:5000/a/b@{digest}",
        "sub.reg.io:5000/a/b",
        "sub.reg.io:5000/a",
        "sub.reg.io:5000",
        "*.reg.io",
        "*.io",
        "",
    ]


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519", "rsa"])
@pytest.mark.parametrize("way", ["tag", "referrers"])
async def test_signed_image_passes(serve: Any, check: Check, kind: str, way: str) -> None:
    registry = await serve()
    signer = Signer(kind)
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/app", digest)
    attach(registry, digest, (payload, signer.sign(payload)), way=way)
    await check(f"{registry.host}/app:v1", sigstore(signer), digest)


async def test_signature_of_the_index_covers_its_manifests(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/app", digest)
    attach(registry, digest, (payload, signer.sign(payload)))
    await check(f"{registry.host}/app", sigstore(signer), digest, Digest.of(b"manifest of the platform"))


async def test_unsigned_image(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    with pytest.raises(SignatureRejected, match="^SignatureValidationFailed: .*it has no signature"):
        await check(f"{registry.host}/app", sigstore(signer), digest)


async def test_signature_by_another_key(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/app", digest)
    attach(registry, digest, (payload, Signer("ecdsa").sign(payload)))
    with pytest.raises(SignatureRejected, match="not by a key of the policy"):
        await check(f"{registry.host}/app", sigstore(signer), digest)


async def test_signature_of_another_image(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest, other = registry.add_image(b"layer"), registry.add_image(b"evil")
    payload = payload_of(f"{registry.host}/app", digest)
    attach(registry, other, (payload, signer.sign(payload)))
    with pytest.raises(SignatureRejected, match=f"for {digest}, not for {other}"):
        await check(f"{registry.host}/app", sigstore(signer), other)


async def test_signature_of_another_repository(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/other", digest)
    attach(registry, digest, (payload, signer.sign(payload)))
    with pytest.raises(SignatureRejected, match="for the name '.*/other'"):
        await check(f"{registry.host}/app", sigstore(signer), digest)


async def test_changed_payload(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest, evil = registry.add_image(b"layer"), registry.add_image(b"evil")
    payload = payload_of(f"{registry.host}/app", digest)
    attach(registry, evil, (payload.replace(digest.encode(), evil.encode()), signer.sign(payload)))
    with pytest.raises(SignatureRejected, match="not by a key"):
        await check(f"{registry.host}/app", sigstore(signer), evil)


async def test_signatures_that_are_listed_and_gone(serve: Any, check: Check, signer: Signer) -> None:
    """What a registry's garbage collector leaves behind does not hide the good signature."""
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/app", digest)
    gone = registry.describe(b"gone", MediaType.COSIGN_SIGNATURE) | {"annotations": {ANNOTATION: "AA=="}}
    del registry.blobs[gone["digest"]]
    good = registry.describe(payload, MediaType.COSIGN_SIGNATURE)
    good |= {"annotations": {ANNOTATION: signer.sign(payload)}}
    kind = MediaType.COSIGN_ARTIFACT
    lost = artifact(registry, registry.describe(b"lost", MediaType.COSIGN_SIGNATURE))
    refer(registry, digest, (lost, kind, {}), (artifact(registry, gone, good), kind, {}))
    del registry.manifests[Digest.of(json.dumps(lost).encode())]
    registry.add_manifest(b"{}", digest.replace(":", "-") + ".sig")
    await check(f"{registry.host}/app", sigstore(signer), digest)


async def test_one_good_signature_among_bad_ones(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/app", digest)
    junk = [
        registry.describe(b"junk", "text/plain"),
        registry.describe(b"junk", MediaType.COSIGN_SIGNATURE),
        registry.describe(b"junk", MediaType.COSIGN_SIGNATURE) | {"annotations": {ANNOTATION: "!!"}},
        {
            "mediaType": MediaType.COSIGN_SIGNATURE,
            "digest": Digest.of(b"huge"),
            "size": 1 << 40,
            "annotations": {ANNOTATION: "AA=="},
        },
    ]
    attach(registry, digest, (b"junk", "AA=="), (payload, signer.sign(payload)), extra=junk)
    await check(f"{registry.host}/app", sigstore(signer), digest)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{}", b'{"critical": {}}', payload_of("x", "y", kind="atomic container signature")],
)
async def test_signed_payload_of_another_form(
    serve: Any, check: Check, signer: Signer, payload: bytes
) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    attach(registry, digest, (payload, signer.sign(payload)))
    with pytest.raises(SignatureRejected, match="payload is malformed"):
        await check(f"{registry.host}/app", sigstore(signer), digest)


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519", "rsa"])
@pytest.mark.parametrize("predicate", [SIGN, ""])
async def test_bundle_passes(serve: Any, check: Check, kind: str, predicate: str) -> None:
    registry = await serve()
    signer = Signer(kind)
    digest = registry.add_image(b"layer")
    attach_bundles(registry, digest, signer.bundle(statement_of(digest)), predicate=predicate)
    await check(f"{registry.host}/app:v1", sigstore(signer), digest, unnamed_signatures=True)


async def test_bundle_names_no_image(serve: Any, check: Check, signer: Signer) -> None:
    """Unless the operator says so, a key vouches for names, which `cosign sign` leaves out of bundles."""
    registry = await serve()
    digest = registry.add_image(b"layer")
    attach_bundles(registry, digest, signer.bundle(statement_of(digest)))
    with pytest.raises(SignatureRejected, match="names no image .*policy.unnamed_signatures in image.toml"):
        await check(f"{registry.host}/app", sigstore(signer), digest)


@pytest.mark.parametrize("unnamed", [True, False])
async def test_bundle_with_a_name_is_held_to_it(
    serve: Any, check: Check, signer: Signer, unnamed: bool
) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    statement = statement_of(digest, f"{registry.host}/app:v1")
    attach_bundles(registry, digest, signer.bundle(statement))
    policy = sigstore(signer, "matchRepoDigestOrExact")
    await check(f"{registry.host}/app:v1", policy, digest, unnamed_signatures=unnamed)
    with pytest.raises(SignatureRejected, match="for the name '.*/app:v1'"):
        await check(f"{registry.host}/app:v2", policy, digest, unnamed_signatures=unnamed)


async def test_bundle_of_another_image_or_key(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest, other = registry.add_image(b"layer"), registry.add_image(b"evil")
    attach_bundles(registry, other, signer.bundle(statement_of(digest)))
    with pytest.raises(SignatureRejected, match=f"for {digest}, not for {other}"):
        await check(f"{registry.host}/app", sigstore(signer), other, unnamed_signatures=True)
    attach_bundles(registry, other, Signer("ecdsa").bundle(statement_of(other)))
    with pytest.raises(SignatureRejected, match="not by a key of the policy"):
        await check(f"{registry.host}/app", sigstore(signer), other, unnamed_signatures=True)


@pytest.mark.parametrize("annotated", [True, False])
async def test_attestation_is_no_signature(
    serve: Any, check: Check, signer: Signer, annotated: bool
) -> None:
    """A scan's result is signed by the same key, and may say that the image must not run."""
    registry = await serve()
    digest = registry.add_image(b"layer")
    predicate = "https://cosign.sigstore.dev/attestation/vuln/v1"
    bundle = signer.bundle(statement_of(digest, predicate=predicate))
    attach_bundles(registry, digest, bundle, predicate=predicate if annotated else "")
    reason = "it has no signature" if annotated else "payload is malformed"
    with pytest.raises(SignatureRejected, match=reason):
        await check(f"{registry.host}/app", sigstore(signer), digest, unnamed_signatures=True)


async def test_one_good_bundle_among_bad_ones(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    statement = statement_of(digest)
    good = signer.bundle(statement)
    bad = [
        b"",
        b"[]",
        b"\xff",
        b"[" * 5000,
        {"mediaType": MediaType.SIGSTORE_BUNDLE},
        good | {"mediaType": "application/vnd.dev.sigstore.bundle.v9+json"},
        good | {"dsseEnvelope": None, "messageSignature": {"signature": "AA=="}},
        signer.bundle(statement, payload="!!"),
        signer.bundle(statement, payloadType="text/plain"),
        signer.bundle(statement, signatures=[]),
        signer.bundle(statement, signatures=good["dsseEnvelope"]["signatures"] * 2),
        signer.bundle(statement, signatures=[{"sig": signer.sign(statement)}]),
        signer.bundle(statement.replace(b"sign/v1", b"sign/v2")),
    ]
    attach_bundles(registry, digest, *bad)
    with pytest.raises(SignatureRejected, match="not by a key of the policy; a signature's payload"):
        await check(f"{registry.host}/app", sigstore(signer), digest, unnamed_signatures=True)
    attach_bundles(registry, digest, *bad, good)
    await check(f"{registry.host}/app", sigstore(signer), digest, unnamed_signatures=True)


@pytest.mark.parametrize(
    ("identity", "asked", "signed", "passes"),
    [
        ({"type": "matchExact"}, "app:v1", "app:v1", True),
        ({"type": "matchExact"}, "app:v1", "app:v2", False),
        ({"type": "matchExact"}, "app:v1", "app", False),
        ({"type": "matchExact"}, "app:v1", "app:v1@DIGEST", False),
        ({"type": "matchExact"}, "app@DIGEST", "app:v1", False),
        ({"type": "matchExact"}, "app@DIGEST", "app@DIGEST", True),
        ({"type": "matchExact"}, "app:v2@DIGEST", "app@DIGEST", True),
        (None, "app:v1", "app:v1", True),
        (None, "app:v1", "app", False),
        (None, "app@DIGEST", "app:v1", True),
        (None, "app:v2@DIGEST", "app:v1", True),
        (None, "app@DIGEST", "app", False),
        (None, "app@DIGEST", "other", False),
        ({"type": "matchRepository"}, "app:v1", "app:v2", True),
        ({"type": "matchRepository"}, "app:v1", "other:v1", False),
        ({"type": "matchRepository"}, "app:v1", "not a reference", False),
        ({"type": "exactReference", "dockerReference": "HOST/x:1"}, "app:v1", "x:1", True),
        ({"type": "exactReference", "dockerReference": "HOST/x:1"}, "app:v1", "app:v1", False),
        ({"type": "exactReference", "dockerReference": "HOST/x"}, "app:v1", "x", False),
        ({"type": "exactRepository", "dockerRepository": "HOST/x"}, "app:v1", "x:9", True),
        ({"type": "exactRepository", "dockerRepository": "HOST/x"}, "app:v1", "app:v1", False),
        (
            {"type": "remapIdentity", "prefix": "HOST", "signedPrefix": "vendor.io"},
            "app:v1",
            "app:v1",
            False,
        ),
        (
            {"type": "remapIdentity", "prefix": "HOST/mirror", "signedPrefix": "HOST/orig"},
            "mirror/app:v1",
            "orig/app:v1",
            True,
        ),
        (
            {"type": "remapIdentity", "prefix": "127.0.0.1", "signedPrefix": "vendor.io"},
            "app:v1",
            "app:v1",
            True,
        ),
        (
            {"type": "remapIdentity", "prefix": "HOST/mirr", "signedPrefix": "HOST/orig"},
            "mirror/app:v1",
            "origor/app:v1",
            False,
        ),
    ],
)
async def test_identities(
    serve: Any, check: Check, signer: Signer, identity: Any, asked: str, signed: str, passes: bool
) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/{signed}".replace("DIGEST", digest), digest)
    attach(registry, digest, (payload, signer.sign(payload)))
    requirement: dict[str, Any] = {"type": "sigstoreSigned", "keyData": signer.key_data}
    if identity is not None:
        requirement["signedIdentity"] = identity
    policy = json.dumps({"default": [requirement]}).replace("HOST", registry.host)
    reference = f"{registry.host}/{asked}".replace("DIGEST", digest)
    if passes:
        await check(reference, policy, digest)
    else:
        with pytest.raises(SignatureRejected, match="is for the name"):
            await check(reference, policy, digest)


async def test_any_of_several_keys_from_files(
    serve: Any, check: Check, signer: Signer, tmp_path: Path
) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/app", digest)
    attach(registry, digest, (payload, signer.sign(payload)))
    paths = [tmp_path / "one.pub", tmp_path / "two.pub"]
    paths[0].write_bytes(Signer("ed25519").public)
    paths[1].write_bytes(signer.public)
    requirement: dict[str, Any] = {
        "type": "sigstoreSigned",
        "signedIdentity": {"type": "matchRepository"},
    }
    await check(
        f"{registry.host}/app",
        {"default": [requirement | {"keyPaths": [str(path) for path in paths]}]},
        digest,
    )
    await check(f"{registry.host}/app", {"default": [requirement | {"keyPath": str(paths[1])}]}, digest)
    with pytest.raises(SignatureRejected):
        await check(f"{registry.host}/app", {"default": [requirement | {"keyPath": str(paths[0])}]}, digest)


async def test_all_requirements_must_hold(serve: Any, check: Check, signer: Signer) -> None:
    registry = await serve()
    digest = registry.add_image(b"layer")
    payload = payload_of(f"{registry.host}/app", digest)
    attach(registry, digest, (payload, signer.sign(payload)))
    other = sigstore(Signer("ecdsa"))["default"]
    with pytest.raises(SignatureRejected):
        await check(f"{registry.host}/app", {"default": [*sigstore(signer)["default"], *other]}, digest)


@pytest.mark.parametrize(
    "field", ["fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyData", "rekorPublicKeyPaths"]
)
async def test_unsupported_fields_are_refused_by_name(check: Check, signer: Signer, field: str) -> None:
    with pytest.raises(InvalidPolicy, match=f"^SignatureValidationFailed: .*{field} is not supported"):
        await check("quay.io/app", sigstore(signer, **{field: "x"}))


async def test_gpg_is_refused_by_name_where_it_applies(check: Check) -> None:
    gpg = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
    policy = {"default": [ACCEPT], "transports": {"docker": {"registry.redhat.io": [gpg]}}}
    await check("quay.io/app", policy)
    with pytest.raises(InvalidPolicy, match=r"signedBy.*sigstoreSigned.*cosign sign --key"):
        await check("registry.redhat.io/app", policy)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("", "truncated"),
        ("[]", "object"),
        ("{}", "default"),
        ('{"default": []}', "empty"),
        ('{"default": [{"type": "magic"}]}', "magic"),
        ('{"default": [{"type": "reject", "x": 1}]}', "x"),
        ('{"default": [{"type": "reject"}], "extra": 1}', "extra"),
        ('{"default": [{"type": "reject"}], "transports": {"docker": {"a": []}}}', "docker"),
        ('{"default": [{"type": "sigstoreSigned"}]}', "exactly one of"),
        ('{"default": [{"type": "sigstoreSigned", "keyPath": "a", "keyData": "b"}]}', "exactly one of"),
        ('{"default": [{"type": "sigstoreSigned", "keyData": "!"}]}', "keyData is not base64"),
        ('{"default": [{"type": "sigstoreSigned", "keyData": "AAAA"}]}', "not a public key"),
        ('{"default": [{"type": "sigstoreSigned", "keyPath": "/missing.pub"}]}', "/missing.pub"),
    ],
)
async def test_bad_policies_block_every_pull(check: Check, policy: str, reason: str) -> None:
    with pytest.raises(InvalidPolicy, match=reason):
        await check("quay.io/app", policy)


async def test_missing_policy_blocks_every_pull(client_for: Any, tmp_path: Path) -> None:
    engine = PolicyEngine(PolicySettings())
    engine.reconfigure(PolicySettings(path=str(tmp_path / "none.json")))
    async with client_for().repository(Reference.parse("quay.io/app")) as repository:
        with pytest.raises(InvalidPolicy, match=r"none\.json: No such file"):
            await engine.check(repository, [Digest.of(b"")])


async def test_changed_policy_is_seen(client_for: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    engine = PolicyEngine(PolicySettings(path=str(path)))
    async with client_for().repository(Reference.parse("quay.io/app")) as repository:
        path.write_text(json.dumps({"default": [ACCEPT]}))
        await engine.check(repository, [Digest.of(b"")])
        path.write_text(json.dumps({"default": [REJECT]}))
        with pytest.raises(SignatureRejected):
            await engine.check(repository, [Digest.of(b"")])


async def test_registry_that_fails_is_no_verdict(check: Check, signer: Signer) -> None:
    with pytest.raises(Exception, match="^RegistryUnavailable"):
        await check("127.0.0.1:1/app", sigstore(signer))
