"""The documents of an image archive, and the images that they describe."""

from __future__ import annotations

from dataclasses import dataclass

from triptych_oci import Descriptor, Digest, InvalidReference, Reference

from triptych_image.errors import ImageMalformed
from triptych_image.offline.archives import read
from triptych_image.offline.members import Archive, Member
from triptych_image.pull.puller import Content

_TOGETHER_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """An image of an archive, not yet loaded.

    :param target: digest that its names stand for.
    :param blobs: its layers.
    """

    content: Content
    target: Digest
    names: tuple[str, ...]
    blobs: dict[Digest, Member]


class Documents:
    """Reads manifests, configs and lists. They stay in memory until their images are loaded, so all of an
    archive's together are bounded, each counted as often as it is read.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._left = _TOGETHER_MAX

    def read(self, name: str, what: str) -> bytes:
        """A document by its name in the archive.

        :raises ImageMalformed: when it is missing, or too much.
        """
        member = self.archive.find(name)
        data = read(member, what)
        self._left -= len(data)
        if self._left < 0:
            raise ImageMalformed(
                f"the manifests and configs of the archive have more than {_TOGETHER_MAX} bytes"
            )
        return data

    def blob(self, descriptor: Descriptor) -> bytes:
        """A document by its digest, which is verified."""
        data = self.read(blob_name(descriptor.digest), f"blob {descriptor.digest}")
        if not descriptor.digest.matches(data):
            raise ImageMalformed(f"blob {descriptor.digest} has another digest")
        return data


def blob_name(digest: Digest) -> str:
    """Where an OCI layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def name_for(text: str, target: Digest) -> str | None:
    """The name that an image gets by a reference; None if that is none, or names another digest.

    What an archive says of a tag is all there is to know, but a digest must be what it stands for.
    """
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return None
    return reference.canonical if reference.digest in (None, target) else None
