"""The log of a mount's process: where it is, and a handler that goes on when the mount covers it.

A mount may lie over the folder that holds its own log (somebody's home). Opened by its path, the log would then be
looked for in the mount, by the process that is to answer for it. So the folder is opened before the mount is made, and
every later open and rename goes by that descriptor: into the folder below the mount.

Each mountpoint has a log of its own: its name is made of the mountpoint's last part, for people, and of a digest of
the whole path. Threads: the handler's own lock, as with every `logging.Handler`.
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
"""A file's name has at most 255 bytes, and the digest and the number of an older log come after this."""


def default_file(mountpoint: Path) -> Path:
    """$XDG_STATE_HOME/dfsfuse/mount-NAME-DIGEST.log for `mountpoint` (as `mountpoints.absolute` gives it), or another
    folder where that one cannot be used (`state_folders`). Raises `MountpointError` if there is none."""
    return state_folders.usable(mountpoint) / file_name(mountpoint)


def file_name(mountpoint: Path) -> str:
    """The name of the log for `mountpoint`: no two mountpoints share one, and it is never too long for a file."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
    name = os.fsencode(mountpoint.name)[:_NAME_MAX_BYTES].decode(errors="ignore")
    name = "".join(character if character.isprintable() else "_" for character in name)
    return f"mount-{name or 'root'}-{digest}.log"


class HeldLog(logging.StreamHandler[TextIOWrapper]):
    """Appends to `file`, which it moves to `file`.1 and so on when it is full, by its folder's descriptor only."""

    def __init__(self, file: Path, *, max_bytes: int = LOG_BYTES, backups: int = LOG_BACKUPS) -> None:
        """Raises OSError if the log cannot be written."""
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
            with suppress(OSError):  # then this one grows, and the next line tries again
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
        with suppress(OSError):  # closed before: logging closes all handlers once more at the end
            os.close(self._folder)
