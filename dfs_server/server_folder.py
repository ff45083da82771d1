"""A server's folder ROOT: created on the first start, marked with its owner, locked while a server runs on it.

    ROOT/server.json    {"format", "name", "identity", "secret"}: which server's folder this is
    ROOT/.lock          locked (flock) by the running server; the kernel releases the lock however the server ends
    ROOT/<user>/        what the server holds for a user

`identity` is random and created with the folder, so a server that comes back empty has a different one. `secret` (the
file can be read only by its owner) is used to make up the answers to unknown users (see `accounts`). Every reason not
to start on a folder is a `FolderError` with a sentence. Knows nothing about the contents of the users' folders. One
thread.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from dfs_server.shared import durable, folder_lock

FORMAT: Final = 1
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class FolderError(Exception):
    """The server cannot run on this folder; the text says why."""


class FolderBusyError(FolderError):
    """Another server is running on this folder."""


class _Marker(msgspec.Struct, frozen=True):
    format: int
    name: str
    identity: str
    secret: str


class _Format(msgspec.Struct, frozen=True):
    format: int


@dataclass(frozen=True)
class ServerFolder:
    """An open, locked folder. A context manager; leaving it releases the lock."""

    path: Path
    name: str
    identity: bytes
    secret: bytes
    _lock: int

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open ROOT, creating it if it is missing. The server's name is the last part of ROOT. Raises `FolderError`."""
        try:
            path = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow a link DFS1 -> /disk7
        except FileNotFoundError:
            raise FolderError(f"{root}: the working folder that this is relative to has been removed") from None
        name = path.name
        if NAME_PATTERN.fullmatch(name) is None:
            raise FolderError(f"{path}: {name!r} cannot be a server's name (letters, digits, '_', '.', '-')")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / folder_lock.FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise FolderError(f"{path}: there is a file in the place of the server's folder") from None
        except OSError as error:
            raise FolderError(f"{path}: the server cannot write in its folder: {error.strerror}") from error
        try:
            if not folder_lock.take(lock):
                raise FolderBusyError(f"{path}: another dfs-server is running on this folder")
            marker = _read_marker(path) or _make_marker(path, name)
            if marker.name != name:
                raise FolderError(
                    f"{path}: this is the folder of server {marker.name}, not of {name}; "
                    f"a server's name is the last part of its folder's path, so it must not be renamed"
                )
            return cls(path, name, bytes.fromhex(marker.identity), bytes.fromhex(marker.secret), lock)
        except OSError as error:
            os.close(lock)
            raise FolderError(f"{path}: the server cannot write in its folder: {error.strerror}") from error
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_marker(path: Path) -> _Marker | None:
    file = path / "server.json"
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise FolderError(f"{file}: the folder has format {found}; this program knows format {FORMAT}")
        marker = msgspec.json.decode(data, type=_Marker)
        bytes.fromhex(marker.identity + marker.secret)
        return marker
    except ValueError as error:  # msgspec's errors are ValueErrors too
        raise FolderError(f"{file}: this is not the file that a dfs-server writes: {error}") from error


def _make_marker(path: Path, name: str) -> _Marker:
    marker = _Marker(FORMAT, name, secrets.token_hex(16), secrets.token_hex(32))
    durable.write_file(path / "server.json", msgspec.json.format(msgspec.json.encode(marker)) + b"\n", mode=0o600)
    durable.fsync_folder(path.parent)
    return marker
