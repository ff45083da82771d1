"""Other processes of this machine, as /proc shows them: who uses a mount, and who has one in a namespace of its own.

Everything there is another user's choice: a process's name and words may hold any byte, and it may be gone, or not ours
to look at, at any moment; what cannot be had is left out. Links are read and never followed, so that a mount that hangs
holds up nobody. No threads, no state.
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
    """One process, by its folder in /proc."""

    folder: Path

    @property
    def pid(self) -> int:
        return int(self.folder.name)

    def name(self) -> str:
        """Its name, fit for a terminal."""
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
        """What it has open and works in, as the kernel names it; nothing is opened or looked up for it."""
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
        """Which mount namespace it is in; empty if we may not know."""
        try:
            return os.fspath((self.folder / "ns/mnt").readlink())
        except OSError:
            return ""

    def __str__(self) -> str:
        return f"{self.name()} ({self.pid})"


def all_processes() -> list[Process]:
    """All that are there now, in the order of their numbers."""
    numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
    return [Process(Path(f"/proc/{number}")) for number in numbers]


def is_below(target: str, folder: Path) -> bool:
    """Whether a target (`Process.targets`) is this folder or below it."""
    path = os.fspath(folder)
    return target == path or target.startswith(path.rstrip("/") + "/")


def using(mountpoint: Path) -> list[str]:
    """`bash (1234)` for each process that works in the mount, as far as we may look, and no more than a few."""
    return few([str(one) for one in all_processes() if any(is_below(target, mountpoint) for target in one.targets())])


def elsewhere(gone: Mount) -> list[Process]:
    """A process for each other mount namespace that has the file system of this mount, which is gone here, as far as
    we may look.

    The kernel gives a device number again when its file system is gone: one that is mounted here is another's, and so
    is one with another source.
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
    """The first of these, and how many more there are."""
    if len(names) > _MAX_NAMED:
        return [*names[:_MAX_NAMED], f"{len(names) - _MAX_NAMED} more"]
    return names
