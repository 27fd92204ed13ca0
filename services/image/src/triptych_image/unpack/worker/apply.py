"""Puts the entries of an archive into the current directory, as the upper directory of an overlay.

Runs chrooted into the layer's directory with a mask of 0, so names are simple relative paths: the kernel
keeps symlinks and everything else inside. Whiteouts become character devices 0:0; opaque directories are
only listed, because setting trusted.* takes CAP_SYS_ADMIN, which this process must not have.
"""

from __future__ import annotations

import os
import stat

from triptych_image.unpack.worker.archive import Archive
from triptych_image.unpack.worker.errors import Refused, limit, malformed, refused_by_kernel, show
from triptych_image.unpack.worker.header import Entry
from triptych_image.unpack.worker.limits import PATH_MAX, Limits
from triptych_image.unpack.worker.names import META, OPAQUE, WHITEOUT, clean, in_meta
from triptych_image.unpack.worker.output import write_all
from triptych_image.unpack.worker.tape import NoTape, TapeWriter
from triptych_image.unpack.worker.target import BLOCK, Target

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}
_SPECIAL = 0o7000
# What an image may set: trusted.* would fake overlayfs's own marks, security.selinux is the host's business.
_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
_DEFAULT_ACL = b"system.posix_acl_default"


class Applier:
    """Applies one archive.

    :ivar implied: directories that no entry named, made because something lies in them.
    :ivar opaque: directories that hide what lower layers have in them.
    :ivar skipped_xattrs: attributes that were left out, because an image may not set them.
    """

    def __init__(self, archive: Archive, tape: TapeWriter | NoTape, limits: Limits) -> None:
        self._archive = archive
        self._tape = tape
        self._limits = limits
        self._target = Target(tape)
        self.implied = self._target.implied
        self.opaque = self._target.opaque
        self.counts = self._target.counts
        self.logical = 0
        self.skipped_xattrs = 0

    def run(self) -> None:
        """Apply every entry, then of directories what further entries would change or inherit.

        :raises Refused: naming the entry; what was written so far stays for the caller to drop.
        """
        for entry in self._archive.members():
            try:
                self._apply(entry)
            except OSError as error:
                raise refused_by_kernel(error, show(entry.name)) from None
            except Refused as error:
                if "'" not in str(error):
                    raise Refused(error.kind, f"{show(entry.name)}: {error}") from None
                raise
        for path, mtime in self._target.times.items():
            try:
                if path in self._target.default_acls:
                    self._set_xattr(path or b".", _DEFAULT_ACL, self._target.default_acls[path])
                os.utime(path or b".", ns=(mtime, mtime), follow_symlinks=False)
            except OSError as error:
                raise refused_by_kernel(error, show(path)) from None
        self._tape.close()

    def _apply(self, entry: Entry) -> None:
        path = clean(entry.name)
        base = path[path.rfind(b"/") + 1 :]
        kind = entry.kind
        if WHITEOUT in path and (base.startswith(WHITEOUT) or in_meta(path)):
            self._skip(entry)
            if not in_meta(path[: -len(base)]):
                self._whiteout(path, base)
        elif kind == b"0":
            self._file(entry, path)
        elif kind == b"5":
            self._directory(entry, path)
        elif not path:
            raise malformed("the root of a layer must be a directory")
        elif kind == b"2":
            self._symlink(entry, path)
        elif kind == b"1":
            self._hard_link(entry, path)
        elif kind in _DEVICES:
            self._device(entry, path)
        else:
            raise malformed(f"entries of type {kind!r} are not supported")

    def _skip(self, entry: Entry) -> None:
        for part in self._archive.payload(entry.size):
            self._tape.literal(part)

    # -- one kind each

    def _file(self, entry: Entry, path: bytes) -> None:
        if not path:
            raise malformed("the root of a layer must be a directory")
        mode = entry.mode
        try:
            fd = os.open(path, _CREATE, mode)
        except OSError as error:
            self._target.make_room(path, error)
            fd = os.open(path, _CREATE, mode)
        try:
            size = entry.size
            if entry.segments is not None:
                self._sparse(entry, path, fd)
            elif size:
                self._tape.file(path, 0, size)
                data = self._archive.small(size)
                if data is not None:
                    if os.write(fd, data) != size:
                        raise OSError(28, "No space left on device")
                else:
                    for part in self._archive.payload(size):
                        write_all(fd, part)
            if entry.uid or entry.gid or self._target.group_inherited:
                os.fchown(fd, entry.uid, entry.gid)
            if mode & _SPECIAL:
                # Writing and chown clear setuid and setgid.
                os.fchmod(fd, mode)
            if entry.xattrs:
                self._set_xattrs(entry, fd)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.counts.inodes += 1
        self.counts.bytes += (size + BLOCK - 1) & -BLOCK

    def _sparse(self, entry: Entry, path: bytes, fd: int) -> None:
        # Holes cost nothing to store, but whoever reads the file reads them.
        self.logical += entry.real_size
        if self._limits.bytes and self.logical > self._limits.bytes:
            raise limit(f"sparse files have more than {self._limits.bytes} bytes")
        os.ftruncate(fd, entry.real_size)
        self._target.sparse[os.fstat(fd).st_ino] = entry.size
        for offset, length in entry.segments or ():
            self._tape.file(path, offset, length)
            os.lseek(fd, offset, os.SEEK_SET)
            for part in self._archive.payload(length):
                write_all(fd, part)

    def _directory(self, entry: Entry, path: bytes) -> None:
        if path:
            try:
                os.mkdir(path, entry.mode)
                self._target.count_directory()
            except FileExistsError as error:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    self._target.make_room(path, error, directory=True)
                    os.mkdir(path, entry.mode)
                    self._target.count_directory()
            except OSError as error:
                self._target.make_room(path, error)
                os.mkdir(path, entry.mode)
                self._target.count_directory()
        target = path or b"."
        os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
        os.chmod(target, entry.mode)
        if entry.mode & stat.S_ISGID:
            self._target.group_inherited = True
        if entry.xattrs:
            if _DEFAULT_ACL in entry.xattrs:
                self._target.default_acls[path] = entry.xattrs.pop(_DEFAULT_ACL)
            self._set_xattrs(entry, target)
        self._target.named(path)
        self._target.times[path] = entry.mtime_ns

    def _symlink(self, entry: Entry, path: bytes) -> None:
        if not entry.link or len(entry.link) > PATH_MAX:
            raise malformed("a symlink needs a target of 1 to 4095 bytes")
        try:
            os.symlink(entry.link, path)
        except OSError as error:
            self._target.make_room(path, error)
            os.symlink(entry.link, path)
        self._finish_special(entry, path)

    def _hard_link(self, entry: Entry, path: bytes) -> None:
        target = clean(entry.link)
        if target == path or not target:
            raise malformed(f"a hard link to {show(entry.link)}")
        if target[target.rfind(b"/") + 1 :].startswith(WHITEOUT):
            raise malformed("a hard link to a whiteout")
        # Before room is made, so that a link to something below itself removes nothing.
        found = os.lstat(target)
        if stat.S_ISDIR(found.st_mode):
            raise malformed(f"a hard link to the directory {show(entry.link)}")
        try:
            os.link(target, path, follow_symlinks=False)
        except OSError as error:
            self._target.make_room(path, error)
            os.link(target, path, follow_symlinks=False)

    def _device(self, entry: Entry, path: bytes) -> None:
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise malformed(f"device {entry.major}:{entry.minor} is out of range")
        kind = _DEVICES[entry.kind]
        device = 0 if kind == stat.S_IFIFO else os.makedev(entry.major, entry.minor)
        try:
            os.mknod(path, entry.mode | kind, device)
        except OSError as error:
            self._target.make_room(path, error)
            os.mknod(path, entry.mode | kind, device)
        self._finish_special(entry, path)
        os.chmod(path, entry.mode)

    def _finish_special(self, entry: Entry, path: bytes) -> None:
        self.counts.inodes += 1
        if entry.uid or entry.gid or self._target.group_inherited:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.xattrs and entry.kind != b"2":
            self._set_xattrs(entry, path)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _whiteout(self, path: bytes, base: bytes) -> None:
        parent = path[: -len(base)].rstrip(b"/")
        if base == OPAQUE:
            self._target.ensure_directory(parent)
            self._target.note(self.opaque, parent)
            return
        if base.startswith(META):
            return  # AUFS's own records, no part of the image
        name = base[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise malformed("a whiteout of no name")
        path = parent + b"/" + name if parent else name
        try:
            os.mknod(path, stat.S_IFCHR, 0)
        except FileExistsError:
            # A whiteout hides what is below; what this layer has itself stays, as the OCI spec says.
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._target.note(self.opaque, path)
            return
        except OSError as error:
            self._target.make_room(path, error)
            os.mknod(path, stat.S_IFCHR, 0)
        self.counts.inodes += 1

    def _set_xattrs(self, entry: Entry, target: int | bytes) -> None:
        for name, value in (entry.xattrs or {}).items():
            if not name.startswith(_XATTRS) or name.startswith(b"user.overlay."):
                self.skipped_xattrs += 1
            else:
                self._set_xattr(target, name, value)

    def _set_xattr(self, target: int | bytes, name: bytes, value: bytes) -> None:
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno == 95 or (error.errno == 1 and name.startswith(b"user.")):
                # The file system has none, or a device cannot have it: as both peers, go on.
                self.skipped_xattrs += 1
                return
            raise
