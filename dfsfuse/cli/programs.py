"""The client's programs, as they are installed: each loads its command and runs it (`dfs_server.starting`).

Imports no command before a program is called. No threads.
"""

from __future__ import annotations

from collections.abc import Callable

from dfs_server.starting import start


def dfc() -> None:
    """The program `dfc`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.dfc import main

        return main

    start(load)


def dfsmount() -> None:
    """The program `dfsmount`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.dfsmount import main

        return main

    start(load)


def mount_dfs() -> None:
    """The program `mount.dfs`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.mount_helper import main

        return main

    start(load)


def umount_dfs() -> None:
    """The program `umount.dfs`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.umount_helper import main

        return main

    start(load)
