"""The log of a mount's process: its location, and a handler that keeps working when the mount covers it.

A mount may cover the folder that holds its own log (a home folder). Opened by its path, the log would then be looked up
in the mount, by the very process that serves the mount. So the folder is opened before mounting, and every later open
and rename is relative to that descriptor: in the folder beneath the mount.

Each mountpoint has its own log: its name consists of the mountpoint's last part, for people, and a digest of the whole
path. Threads: the handler's own lock, as with every `logging.Handler`.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from dfsfuse.mount import state_folders

LOG_BYTES: Final = 4 * 1024 * 1024
LOG_BACKUPS: Final = 2
_NAME_MAX_BYTES: Final = 200
"""A file name has at most 255 bytes, and the digest and the number of an older log are appended to this."""


def default_file(mountpoint: Path) -> Path:
    """$XDG_STATE_HOME/dfsfuse/mount-NAME-DIGEST.log for `mountpoint` (as returned by `mountpoints.absolute`), or in
    another folder if that one cannot be used (`state_folders`). Raises `MountpointError` if there is none."""
    return state_folders.usable(mountpoint) / file_name(mountpoint)


def file_name(mountpoint: Path) -> str:
    """The name of the log for `mountpoint`: different for each mountpoint, and never too long for a file name."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
    name = os.fsencode(mountpoint.name)[:_NAME_MAX_BYTES].decode(errors="ignore")
    name = "".join(character if character.isprintable() else "_" for character in name)
    return f"mount-{name or 'root'}-{digest}.log"


class HeldLog(logging.StreamHandler[TextIOWrapper]):
    """Appends to `file`, which is renamed to `file`.1 and so on when it is full, using only its folder's descriptor."""

    def __init__(self, file: Path, *, max_bytes: int = LOG_BYTES, backups: int = LOG_BACKUPS) -> None:
        """Open the log. Raises OSError if it cannot be written."""
        self._names = [file.name, *(f"{file.name}.{number}" for number in range(1, backups + 1))]
        self._max_bytes = max_bytes
        self._folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            super().__init__(self._open())
        except OSError:
            os.close(self._folder)
            raise

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self.stream.tell() >= self._max_bytes:
            with suppress(OSError):  # the current file then grows, and the next line tries again
                self._rotate()

    def _rotate(self) -> None:
        for older, newer in reversed(list(zip(self._names[1:], self._names, strict=False))):
            with suppress(FileNotFoundError):
                os.rename(newer, older, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        full = self.setStream(self._open())
        if full is not None:
            full.close()

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._names[0], flags, 0o600, dir_fd=self._folder)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123

    def close(self) -> None:
        super().close()
        self.stream.close()
        with suppress(OSError):  # already closed: logging closes all handlers again at the end
            os.close(self._folder)
