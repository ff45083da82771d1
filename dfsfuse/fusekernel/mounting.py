"""Mounting and unmounting: with mount(2) where that is allowed (root), otherwise with the helper fusermount3.

Returns the descriptor of /dev/fuse that a `session.Session` serves. Touches nothing inside a mount (its process may
hang), and no mtab: on Linux that is the kernel's own table. Raises `MountError`. No threads.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

DEVICE: Final = Path("/dev/fuse")
HELPER_TIMEOUT_S: Final = 15.0
_MNT_FORCE, _MNT_DETACH, _UMOUNT_NOFOLLOW = 1, 2, 8
_FLAGS: Final = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "sync": 16,
    "dirsync": 128,
    "noatime": 1024,
    "nodiratime": 2048,
}
"""MS_* of mount(2)."""


class MountError(Exception):
    """Mounting or unmounting was refused. `errno` is 0 if only the helper's message is known."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.errno = number


@dataclass(frozen=True)
class MountOptions:
    """How to mount. `flags` are words of mount(8); without privileges they always include nosuid and nodev."""

    fsname: str = "fuse"
    subtype: str = ""
    """The mount's type appears as `fuse.<subtype>`."""
    allow_other: bool = False
    default_permissions: bool = False
    max_read_bytes: int = 0
    flags: frozenset[str] = frozenset({"nosuid", "nodev"})
    auto_unmount: bool = False
    """Make the helper unmount when this process ends, however it ends."""


class Mount:
    """A new mount to be served. Closing it ends the connection; unmount first, or cut the session off."""

    def __init__(self, mountpoint: Path, descriptor: int, keeper: _Keeper | None = None) -> None:
        self.mountpoint = mountpoint
        self.descriptor = descriptor
        self._dead_end = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        """Reads from this descriptor report that the mount is gone; answers and notifications sent to it are lost."""
        self._keeper = keeper

    def close(self) -> None:
        """Close the device. If it is still mounted, every access to the mount fails from now on.

        The descriptor's number stays in use, for /dev/null: threads of a session that was cut off, and of
        notifications, may be about to use it, and it must not refer to a server's connection or another file.
        """
        os.dup2(self._dead_end, self.descriptor, inheritable=False)
        os.close(self._dead_end)
        if self._keeper is not None:
            self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class _Keeper:
    """A helper that keeps running, to unmount when our end of its channel closes (auto_unmount)."""

    process: subprocess.Popen[bytes]
    channel: socket.socket

    def close(self) -> None:
        self.channel.close()
        with contextlib.suppress(MountError):
            _finish(self.process)


def mount(mountpoint: Path, options: MountOptions) -> Mount:
    """Mount. Any access to the mountpoint blocks from now on until a session serves it."""
    unknown = options.flags - _FLAGS.keys()
    if unknown:
        raise MountError(f"no such mount flag: {', '.join(sorted(unknown))}", errno.EINVAL)
    if os.geteuid() == 0 and not options.auto_unmount:
        try:
            return _mount_directly(mountpoint, options)
        except MountError as error:
            if error.errno != errno.EPERM or fusermount() is None:
                raise
    return _mount_with_helper(mountpoint, options)


def unmount(mountpoint: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount. `lazy`: even if programs are using it; they keep it. `force` (root): cut their connection."""
    if os.geteuid() == 0:
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0) | (_MNT_FORCE if force else 0)
        if _libc().umount2(os.fsencode(mountpoint), flags) == 0:
            return
        number = ctypes.get_errno()
        if number != errno.EPERM or fusermount() is None:
            raise MountError(f"{mountpoint}: cannot be unmounted: {os.strerror(number)}", number)
    _run_helper(["-u", *(["-z"] if lazy else []), "--", os.fspath(mountpoint)])


def set_read_ahead(device: str, kib: int) -> bool:
    """Set how far the kernel reads ahead in the mount of this device (MAJOR:MINOR). False: not permitted, or not
    available (only root may, and /sys must be writable). A single request is still limited by the kernel's limit of
    pages."""
    try:
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(kib))
    except OSError:
        return False
    return True


def fusermount() -> str | None:
    """The program with which users other than root mount and unmount."""
    return shutil.which("fusermount3") or shutil.which("fusermount")


def _mount_directly(mountpoint: Path, options: MountOptions) -> Mount:
    try:
        mode = mountpoint.stat().st_mode
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"{error.filename}: {error.strerror}", error.errno or 0) from error
    words = [
        f"fd={descriptor}",
        f"rootmode={stat.S_IFMT(mode):o}",
        f"user_id={os.geteuid()}",
        f"group_id={os.getegid()}",
    ]
    words += _shared_words(options)
    flags = sum(_FLAGS[word] for word in options.flags)
    kind = f"fuse.{options.subtype}" if options.subtype else "fuse"
    arguments = (os.fsencode(options.fsname), os.fsencode(mountpoint), kind.encode(), ctypes.c_ulong(flags))
    if _libc().mount(*arguments, ",".join(words).encode()) != 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise MountError(f"{mountpoint}: cannot be mounted: {os.strerror(number)}", number)
    return Mount(mountpoint, descriptor)


def _shared_words(options: MountOptions) -> list[str]:
    words = []
    if options.default_permissions:
        words.append("default_permissions")
    if options.allow_other:
        words.append("allow_other")
    if options.max_read_bytes:
        words.append(f"max_read={options.max_read_bytes}")
    return words


def _mount_with_helper(mountpoint: Path, options: MountOptions) -> Mount:
    """Mount with fusermount3, which opens /dev/fuse, mounts, and passes the descriptor over a socket that it
    inherits."""
    words = [f"fsname={_escaped(options.fsname)}", *_shared_words(options), *sorted(options.flags)]
    if options.subtype:
        words.append(f"subtype={_escaped(options.subtype)}")
    if options.auto_unmount:
        words.append("auto_unmount")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as opened:
        opened.callback(ours.close)
        with theirs:
            process = _start_helper(["-o", ",".join(words), "--", os.fspath(mountpoint)], theirs)
        if not options.auto_unmount:
            _finish(process)
            return Mount(mountpoint, _receive_descriptor(ours))
        try:
            descriptor = _receive_descriptor(ours)
        except MountError:
            _finish(process)  # its error message says why
            raise
        opened.pop_all()
        return Mount(mountpoint, descriptor, _Keeper(process, ours))


def _run_helper(arguments: list[str]) -> None:
    _finish(_start_helper(arguments))


def _start_helper(arguments: list[str], channel: socket.socket | None = None) -> subprocess.Popen[bytes]:
    program = fusermount()
    if program is None:
        raise MountError("fusermount3 is missing (apt-get install fuse3)", errno.ENOENT)
    environment = {**os.environ, "LC_ALL": "C"}
    inherited: tuple[int, ...] = ()
    if channel is not None:
        environment["_FUSE_COMMFD"] = str(channel.fileno())
        inherited = (channel.fileno(),)
    return subprocess.Popen(
        [program, *arguments],
        env=environment,
        pass_fds=inherited,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the helper. Raises `MountError` with its error output if it failed."""
    with process:
        try:
            _, words = process.communicate(timeout=HELPER_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise MountError("fusermount3 hangs", errno.ETIMEDOUT) from error
    if process.returncode != 0:
        raise MountError(" ".join(os.fsdecode(words).split()) or f"fusermount3: exit status {process.returncode}")


def _receive_descriptor(channel: socket.socket) -> int:
    channel.settimeout(HELPER_TIMEOUT_S)
    try:
        received, control, _, _ = channel.recvmsg(
            1, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except OSError as error:
        raise MountError(f"fusermount3 gave no descriptor: {error}") from error
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors = array.array("i")
            descriptors.frombytes(data[: descriptors.itemsize])
            return descriptors[0]
    raise MountError("fusermount3 gave no descriptor" if received else "fusermount3 refused to mount")


def _escaped(text: str) -> str:
    """Escape a value for the helper's list of options, which is split at commas."""
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
