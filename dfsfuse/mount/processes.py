"""Other processes of this machine, as /proc shows them: those that use a mount, and those that have one in another
namespace.

Everything there is under other users' control: a process's name and arguments may contain any byte, and it may vanish,
or be inaccessible, at any moment; unavailable information is skipped. Links are read and never followed, so that a
hanging mount blocks nothing. No threads, no state.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dfsfuse.mount import mount_table
from dfsfuse.mount.mount_table import Mount

_MAX_NAMED = 5


@dataclass(frozen=True)
class Process:
    """One process, identified by its folder in /proc."""

    folder: Path

    @property
    def pid(self) -> int:
        return int(self.folder.name)

    def name(self) -> str:
        """Its name, made printable."""
        try:
            name = (self.folder / "comm").read_bytes().removesuffix(b"\n").decode(errors="replace")
        except OSError:
            return "process"
        return "".join(character if character.isprintable() else "?" for character in name)

    def words(self) -> list[bytes]:
        """Its command line."""
        try:
            return (self.folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return []

    def targets(self) -> Iterator[str]:
        """Its open files and working folder, as the kernel names them; nothing is opened or looked up for this."""
        links = [self.folder / "cwd", self.folder / "root", self.folder / "exe"]
        with suppress(OSError):
            links += (self.folder / "fd").iterdir()
        for link in links:
            with suppress(OSError):
                yield os.fspath(link.readlink())

    def mounts(self) -> list[Mount]:
        """The mounts in its namespace."""
        try:
            return mount_table.read(self.folder / "mountinfo")
        except OSError:
            return []

    def namespace(self) -> str:
        """The mount namespace it is in; empty if we may not know."""
        try:
            return os.fspath((self.folder / "ns/mnt").readlink())
        except OSError:
            return ""

    def __str__(self) -> str:
        return f"{self.name()} ({self.pid})"


def all_processes() -> list[Process]:
    """All current processes, in order of their numbers."""
    numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    return [Process(Path(f"/proc/{number}")) for number in numbers]


def is_below(target: str, folder: Path) -> bool:
    """Whether a target (`Process.targets`) is this folder or below it."""
    path = os.fspath(folder)
    return target == path or target.startswith(path.rstrip("/") + "/")


def using(mountpoint: Path) -> list[str]:
    """`bash (1234)` for each process that uses the mount, as far as we may look, and only the first few."""
    return few([str(one) for one in all_processes() if any(is_below(target, mountpoint) for target in one.targets())])


def elsewhere(gone: Mount) -> list[Process]:
    """One process for each other mount namespace that still has the file system of this mount, which is gone here, as
    far as we may look.

    The kernel reuses a device number once its file system is gone: a mount here with the same device is a different
    one, and so is a mount with another source.
    """
    here = Process(Path("/proc/self"))
    if any(mount.device == gone.device for mount in here.mounts()):
        return []
    wanted = (gone.device, gone.type, gone.source)
    found: list[Process] = []
    seen = {here.namespace()}
    for process in all_processes():
        namespace = process.namespace()
        if namespace in seen:
            continue
        if namespace:
            seen.add(namespace)
        if any((mount.device, mount.type, mount.source) == wanted for mount in process.mounts()):
            found.append(process)
    return found


def few(names: list[str]) -> list[str]:
    """The first few of these, and how many more there are."""
    if len(names) > _MAX_NAMED:
        return [*names[:_MAX_NAMED], f"{len(names) - _MAX_NAMED} more"]
    return names
