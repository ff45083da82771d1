"""The folder in which unsaved data is kept: docs/disk-format.md, "What a mount could not save".

    UNSAVED/ID/             mode 700; ID is the time, UTC, and the number of the mount's process
        manifest            one line `dfsfuse unsaved FORMAT DIGEST`, then JSON: namespace, mount, files, their parts
        data                the bytes of all parts, one after the other
        names.txt           for people: one line per file

Invariants: each part has the digest of its bytes; what does not match its digest is never used. A folder is created as
ID.part, fsynced with all its contents, and then renamed: whatever is named ID is complete.

If the disk is full, the smallest files are kept first, and each file's record says how many of its bytes are missing.

Knows the local disk; no servers, no Vfs. No threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from dfs_server.shared import durable
from dfsfuse.upkeep.recovery import manifest as manifests
from dfsfuse.upkeep.recovery.manifest import KeptError, KeptFile, Manifest, Part
from dfsfuse.vfs.write.left_over import LeftOver

FOLDER: Final = "unsaved"
"""The name of UNSAVED, which is in one of the user's state folders (`dfsfuse.mount.state_folders`)."""
_PART_SUFFIX: Final = ".part"
_MANIFEST_MAX_BYTES: Final = 1 << 30
_RECORD_BYTES: Final = 1024
"""Room set aside for what the manifest says about one file or part, apart from its path."""


class Kept:
    """A folder of unsaved data."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def id(self) -> str:
        """Return the name used on the command line."""
        return self.folder.name

    def read(self, part: Part) -> bytes:
        """Return the bytes of a part that is kept here. Raises `KeptError` if they are not what was written."""
        assert part.at is not None
        try:
            with (self.folder / "data").open("rb") as file:
                file.seek(part.at)
                data = file.read(part.length)
        except OSError as error:
            raise KeptError(f"{self.folder}/data: cannot be read: {error.strerror}") from error
        if len(data) != part.length or blake3(data).digest() != part.digest:
            raise KeptError(f"{self.folder}/data: bytes {part.at} to {part.at + part.length} are not what was written")
        return data

    def keep_only(self, files: Sequence[KeptFile]) -> None:
        """Keep only these; the others are done. If there are none, the folder is removed. Raises OSError."""
        if not files:
            self.discard()
            return
        self.manifest = msgspec.structs.replace(self.manifest, files=tuple(files))
        durable.write_file(self.folder / "manifest", manifests.encode(self.manifest))

    def may_be_appended(self, files: Sequence[KeptFile], left: Sequence[KeptFile]) -> list[KeptFile]:
        """Prepare to apply `files`; `left` are all that are not done. Those that are appended to are first recorded as
        in doubt, so that they are never appended twice. Returns the updated `left`. Raises OSError."""
        about_to = {file.inode for file in files if file.is_appended and not file.is_doubtful}
        if not about_to:
            return list(left)
        marked = [msgspec.structs.replace(file, is_doubtful=True) if file.inode in about_to else file for file in left]
        self.keep_only(marked)
        return marked

    @contextmanager
    def locked(self) -> Iterator[Kept]:
        """Yield the folder as it is now, while no other process applies or removes it. Raises `KeptError`."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KeptError(f"{self.folder}: cannot be opened: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise KeptError(f"{self.folder}: another 'dfc recover' is working on it: wait until it ends") from None
            yield load(self.folder)
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Remove it and all its contents. Raises OSError."""
        gone = self.folder.with_name(self.folder.name + _PART_SUFFIX)
        self.folder.rename(gone)
        shutil.rmtree(gone)
        durable.fsync_folder(gone.parent)


def keep(where: Path, name: str, manifest: Manifest, files: Iterable[LeftOver]) -> Kept:
    """Write what is left over into a new folder `name` in `where`. What does not fit on the disk is missing in the
    result. Raises OSError if nothing can be written at all."""
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = where / (name + _PART_SUFFIX)
    folder.mkdir(mode=0o700)
    try:
        wanted = sorted(files, key=lambda file: file.size)
        with _create(folder / "manifest") as text:
            os.posix_fallocate(text.fileno(), 0, _room_for(manifest, wanted))
            with _create(folder / "data") as data:
                kept = tuple(_keep_file(data.fileno(), file) for file in wanted)
                os.fsync(data.fileno())
            made = msgspec.structs.replace(manifest, files=kept)
            text.write(manifests.encode(made))
            text.truncate()
            text.flush()
            os.fsync(text.fileno())
        with suppress(OSError):  # the manifest says it too
            _write_names(folder / "names.txt", made)
        durable.fsync_folder(folder)
        folder.rename(where / name)
        durable.fsync_folder(where)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Kept(where / name, made)


def found_in(where: Path) -> tuple[list[Kept], list[KeptError]]:
    """Return all that is kept there, oldest first; and why some of it cannot be read."""
    kept: list[Kept] = []
    errors: list[KeptError] = []
    try:
        names = sorted(os.listdir(where))  # noqa: PTH208
    except OSError:
        return [], []
    for name in names:
        if not name.endswith(_PART_SUFFIX) and (where / name / "manifest").exists():
            try:
                kept.append(load(where / name))
            except KeptError as error:
                errors.append(error)
    return kept, errors


def load(folder: Path) -> Kept:
    """Return what is kept in this folder. Raises `KeptError`."""
    file = folder / "manifest"
    try:
        with file.open("rb") as opened:
            data = opened.read(_MANIFEST_MAX_BYTES)
    except OSError as error:
        raise KeptError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        return Kept(folder, manifests.decode(data))
    except KeptError as error:
        raise KeptError(f"{file}: {error}") from error


def _room_for(manifest: Manifest, files: Sequence[LeftOver]) -> int:
    """Return an upper bound of the manifest's size with these files in it, whose paths are Base64 there."""
    paths = [manifest.mountpoint, *(file.path or b"" for file in files)]
    records = 2 + sum(1 + len(file.parts) for file in files)
    return _RECORD_BYTES * records + 2 * sum(map(len, paths)) + 6 * len(manifest.why)


def _keep_file(data: int, file: LeftOver) -> KeptFile:
    parts: list[Part] = []
    missing = 0
    for shown in file.parts:
        if shown.data is None:
            assert shown.segment is not None
            segment = msgspec.msgpack.encode(shown.segment)
            parts.append(Part(shown.start, shown.length, segment=segment, segment_offset=shown.segment_offset))
        elif (at := _append(data, shown.data)) is None:
            missing += shown.length
        else:
            parts.append(Part(shown.start, shown.length, at, blake3(shown.data).digest()))
    return KeptFile(
        file.ino,
        file.path,
        file.written_ns,
        file.is_appended,
        file.is_doubtful,
        tuple(parts),
        missing_bytes=missing,
        state=file.state,
    )


def _append(data: int, block: memoryview) -> int | None:
    """Append the bytes; returns where they begin in the file, or None if they cannot be written."""
    at = os.lseek(data, 0, os.SEEK_END)
    left = block
    try:
        while left:
            left = left[os.write(data, left) :]
    except OSError as error:
        os.ftruncate(data, at)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
            return None
        raise
    return at


def _write_names(file: Path, manifest: Manifest) -> None:
    with _create(file) as opened:
        for kept in manifest.files:
            name = _shown(kept).encode("utf-8", "backslashreplace").replace(b"\n", b"\\n")
            lost = f" ({kept.missing_bytes} more could not be kept)" if kept.missing_bytes else ""
            opened.write(b"%s: %d bytes%s\n" % (name, kept.size, lost.encode()))
        opened.flush()
        os.fsync(opened.fileno())


def _shown(file: KeptFile) -> str:
    return f"/{os.fsdecode(file.path)}" if file.path is not None else f"inode {file.inode}"


def _create(file: Path):  # type: ignore[no-untyped-def]
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return open(descriptor, "wb")  # noqa: PTH123
