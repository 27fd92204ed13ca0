"""OCI image types: digests, references, platforms, manifests and image configs."""

from triptych_oci.digest import Digest, chain_id, chain_ids
from triptych_oci.documents import (
    ANNOTATION_IMAGE_NAME,
    ANNOTATION_REF_NAME,
    ContainerConfig,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    PlatformSpec,
    RootFs,
)
from triptych_oci.errors import (
    InvalidDigest,
    InvalidDocument,
    InvalidPlatform,
    InvalidReference,
    NoMatchingPlatform,
    UnsupportedDocument,
)
from triptych_oci.media_types import (
    Compression,
    MediaType,
    compression_of,
    is_layer,
    oci_layer,
    sniff_compression,
)
from triptych_oci.parsing import (
    MAX_DOCUMENT,
    check_layer_count,
    encode,
    parse_descriptor,
    parse_image_config,
    parse_manifest,
    without_nulls,
)
from triptych_oci.platform import Platform, PlatformMatcher, host_platform
from triptych_oci.reference import DEFAULT_DOMAIN, DEFAULT_TAG, Reference

__all__ = [
    "ANNOTATION_IMAGE_NAME",
    "ANNOTATION_REF_NAME",
    "DEFAULT_DOMAIN",
    "DEFAULT_TAG",
    "MAX_DOCUMENT",
    "Compression",
    "ContainerConfig",
    "Descriptor",
    "Digest",
    "History",
    "ImageConfig",
    "Index",
    "InvalidDigest",
    "InvalidDocument",
    "InvalidPlatform",
    "InvalidReference",
    "Manifest",
    "MediaType",
    "NoMatchingPlatform",
    "Platform",
    "PlatformMatcher",
    "PlatformSpec",
    "Reference",
    "RootFs",
    "UnsupportedDocument",
    "chain_id",
    "chain_ids",
    "check_layer_count",
    "compression_of",
    "encode",
    "host_platform",
    "is_layer",
    "oci_layer",
    "parse_descriptor",
    "parse_image_config",
    "parse_manifest",
    "sniff_compression",
    "without_nulls",
]
