"""Manifests, indexes and configs from bytes nobody vouches for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triptych_errors import Code, TriptychError
from triptych_oci import (
    Compression,
    Digest,
    Index,
    InvalidDocument,
    Manifest,
    MediaType,
    UnsupportedDocument,
    check_layer_count,
    compression_of,
    is_layer,
    parse_image_config,
    parse_manifest,
    sniff_compression,
)

BLOB = {"mediaType": "a/b", "digest": Digest.of(b""), "size": 1}
MANIFEST = {"schemaVersion": 2, "config": BLOB, "layers": [BLOB]}
INDEX = {"schemaVersion": 2, "manifests": [BLOB]}


def parse(document: Any, **options: Any) -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), **options)


@pytest.mark.parametrize(
    ("document", "served", "kind", "media_type"),
    [
        (MANIFEST, "", Manifest, MediaType.OCI_MANIFEST),
        (MANIFEST, MediaType.DOCKER_MANIFEST, Manifest, MediaType.DOCKER_MANIFEST),
        (MANIFEST, f"{MediaType.DOCKER_MANIFEST}; charset=utf-8", Manifest, MediaType.DOCKER_MANIFEST),
        (MANIFEST, "application/octet-stream", Manifest, MediaType.OCI_MANIFEST),
        (MANIFEST | {"mediaType": MediaType.DOCKER_MANIFEST}, "", Manifest, MediaType.DOCKER_MANIFEST),
        (
            MANIFEST | {"mediaType": MediaType.OCI_MANIFEST},
            MediaType.DOCKER_MANIFEST,
            Manifest,
            MediaType.OCI_MANIFEST,
        ),
        (MANIFEST | {"layers": None, "annotations": None}, "", Manifest, MediaType.OCI_MANIFEST),
        (MANIFEST | {"unknown": {"deep": [1]}}, "", Manifest, MediaType.OCI_MANIFEST),
        (INDEX, "", Index, MediaType.OCI_INDEX),
        (INDEX, MediaType.DOCKER_INDEX, Index, MediaType.DOCKER_INDEX),
        (INDEX | {"manifests": []}, "", Index, MediaType.OCI_INDEX),
    ],
)
def test_kinds_are_told_apart(document: Any, served: str, kind: type, media_type: str) -> None:
    found = parse(document, media_type=served)
    assert type(found) is kind
    assert found.media_type == media_type


@pytest.mark.parametrize(
    ("document", "served"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, ""),
        (MANIFEST, MediaType.DOCKER_SCHEMA1),
        ({"schemaVersion": 2, "mediaType": MediaType.DOCKER_SCHEMA1_SIGNED}, ""),
    ],
)
def test_schema_1_is_refused_by_name(document: Any, served: str) -> None:
    with pytest.raises(UnsupportedDocument, match="schema 1") as caught:
        parse(document, media_type=served)
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("document", "served", "reason"),
    [
        ({}, "", "neither config nor manifests"),
        (MANIFEST | {"manifests": [BLOB]}, "", "ambiguous"),
        (MANIFEST, MediaType.OCI_INDEX, "contradicts"),
        (INDEX | {"mediaType": MediaType.OCI_MANIFEST}, "", "contradicts"),
        (MANIFEST | {"schemaVersion": 3}, "", "schemaVersion is 3"),
        (MANIFEST | {"config": BLOB | {"size": -1}}, "", r"config\.size"),
        (MANIFEST | {"config": BLOB | {"size": 1 << 63}}, "", "size"),
        (MANIFEST | {"config": BLOB | {"size": "1"}}, "", r"config\.size"),
        (MANIFEST | {"config": BLOB | {"digest": "sha256:x"}}, "", r"config\.digest"),
        (MANIFEST | {"config": BLOB | {"digest": 5}}, "", r"config\.digest"),
        (MANIFEST | {"config": BLOB | {"digest": ["sha256:x"]}}, "", r"config\.digest"),
        (MANIFEST | {"layers": [{}]}, "", r"layers\[0\]"),
        (MANIFEST | {"layers": {}}, "", "layers"),
        (MANIFEST | {"layers": [BLOB] * 2001}, "", "2001 layers"),
        (INDEX | {"manifests": [BLOB] * 4001}, "", "4001 manifests"),
        (INDEX | {"manifests": [BLOB | {"platform": "linux"}]}, "", "platform"),
    ],
)
def test_wrong_shapes_name_the_place(document: Any, served: str, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=f"^the thing: .*{reason}"):
        parse(document, media_type=served, what="the thing")


def test_limit() -> None:
    with pytest.raises(InvalidDocument, match="11 bytes, more than the limit of 10"):
        parse_manifest(b" " * 11, limit=10)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    for parser in (parse_manifest, parse_image_config):
        try:
            parser(data)
        except TriptychError as error:
            assert isinstance(error, InvalidDocument | UnsupportedDocument)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["schemaVersion", "config", "layers", "manifests", "mediaType", "rootfs", "subject"]
        ),
        json_values
        | st.just(2)
        | st.builds(lambda digest: BLOB | {"digest": digest}, json_values)
        | st.just(BLOB)
        | st.just([BLOB]),
    )
)
def test_any_shape_parses_or_is_refused(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    for parser in (parse_manifest, parse_image_config):
        try:
            parser(data)
        except TriptychError as error:
            assert isinstance(error, InvalidDocument | UnsupportedDocument)


def test_artifacts() -> None:
    image = parse(MANIFEST | {"config": BLOB | {"mediaType": MediaType.DOCKER_CONFIG}})
    assert isinstance(image, Manifest)
    assert image.is_image
    typed = parse(MANIFEST | {"artifactType": "a/model", "subject": BLOB})
    assert isinstance(typed, Manifest)
    assert (typed.is_image, typed.kind) == (False, "a/model")
    assert typed.subject is not None
    plain = parse(MANIFEST)
    assert isinstance(plain, Manifest)
    assert plain.kind == "a/b"


def test_config_as_docker_writes_it() -> None:
    diff = Digest.of(b"layer")
    text = {
        "architecture": "amd64",
        "os": "linux",
        "os.version": "1",
        "config": {
            "User": "1000:1000",
            "Env": ["PATH=/bin"],
            "Entrypoint": None,
            "Cmd": ["sh"],
            "WorkingDir": "/w",
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Labels": None,
            "StopSignal": "SIGQUIT",
            "ArgsEscaped": True,
            "OnBuild": None,
            "Healthcheck": {"Test": ["CMD"]},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created_by": "x", "empty_layer": True}],
        "docker_version": "20",
        "container_config": {"Cmd": None},
    }
    config = parse_image_config(json.dumps(text).encode())
    settings = config.settings
    assert (settings.user, settings.cmd, settings.entrypoint) == ("1000:1000", ("sh",), None)
    assert settings.volumes == {"/data": {}}
    assert settings.stop_signal == "SIGQUIT"
    assert config.diff_ids == (diff,)
    assert config.history is not None
    assert config.history[0].empty_layer
    manifest = parse(MANIFEST)
    assert isinstance(manifest, Manifest)
    check_layer_count(manifest, config, "x")
    with pytest.raises(InvalidDocument, match="x: the manifest has 1 layers, the config 0"):
        check_layer_count(manifest, parse_image_config(b"{}"), "x")


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'{"rootfs": {"type": "other"}}',
        b'{"rootfs": {"diff_ids": ["x"]}}',
        b'{"rootfs": {"diff_ids": [5]}}',
        b'{"rootfs": {"diff_ids": [null]}}',
        b'{"config": {"Env": "x"}}',
    ],
)
def test_bad_configs(text: bytes) -> None:
    with pytest.raises(InvalidDocument, match="^image config: "):
        parse_image_config(text)


def test_what_is_null_counts_as_missing() -> None:
    settings = {"User": None, "WorkingDir": None, "Labels": {"a": None, "b": "c"}, "ArgsEscaped": None}
    text = {"os": None, "config": settings, "history": [{"empty_layer": None}], "rootfs": None}
    config = parse_image_config(json.dumps(text).encode())
    assert (config.os, config.settings.user, config.settings.labels) == ("", "", {"b": "c"})
    manifest = parse(MANIFEST | {"mediaType": None, "annotations": {"a": None}})
    assert (manifest.media_type, manifest.annotations) == (MediaType.OCI_MANIFEST, {})
    index = parse(INDEX | {"manifests": [BLOB | {"platform": {"os": "linux", "architecture": None}}]})
    assert isinstance(index, Index) and index.manifests
    with pytest.raises(InvalidDocument, match="missing required field `digest`"):
        parse(MANIFEST | {"config": BLOB | {"digest": None}})
    with pytest.raises(InvalidDocument, match="got `null`"):
        parse_image_config(json.dumps(text | {"author": "x" * 300_000}).encode())


def test_empty_config_has_settings() -> None:
    config = parse_image_config(b"{}")
    assert config.settings.env is None
    assert config.diff_ids == ()


def test_layers_by_media_type() -> None:
    assert compression_of(MediaType.OCI_LAYER_ZSTD) is Compression.ZSTD
    assert compression_of(MediaType.DOCKER_LAYER_GZIP) is Compression.GZIP
    assert compression_of(MediaType.OCI_LAYER) is Compression.NONE
    assert compression_of("model/weights") is Compression.UNKNOWN
    assert is_layer(MediaType.OCI_FOREIGN_LAYER)
    assert not is_layer(MediaType.OCI_CONFIG)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x1f\x8b\x08", Compression.GZIP),
        (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
        (b"\x50\x2a\x4d\x18", Compression.ZSTD),
        (b"\x5f\x2a\x4d\x18", Compression.ZSTD),
        (b"\x60\x2a\x4d\x18", Compression.NONE),
        (b"", Compression.NONE),
        (b"dir/\0", Compression.NONE),
    ],
)
def test_layers_by_first_bytes(head: bytes, expected: Compression) -> None:
    assert sniff_compression(head) is expected
