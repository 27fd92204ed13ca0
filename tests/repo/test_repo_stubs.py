"""The checked-in stubs are what proto/ says."""

from __future__ import annotations

from triptych_dev import gen


def test_stubs_are_fresh() -> None:
    assert gen.stale() == [], "run ./dev gen"


def test_secrets_of_credentials_are_marked() -> None:
    from runtime.v1 import api_pb2

    redacted = {f.name for f in api_pb2.AuthConfig.DESCRIPTOR.fields if f.GetOptions().debug_redact}
    assert redacted == {"password", "auth", "identity_token", "registry_token"}
