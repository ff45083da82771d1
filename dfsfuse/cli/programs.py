"""The client's programs as installed: each loads its command and runs it (`dfs_server.shared.starting`).

No command is imported before its program is called. No threads.
"""

from __future__ import annotations

from collections.abc import Callable

from dfs_server.shared.starting import start


def dfc() -> None:
    """The program `dfc`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.dfc.app import main

        return main

    start(load)


def dfsmount() -> None:
    """The program `dfsmount`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.mount.dfsmount import main

        return main

    start(load)


def mount_dfs() -> None:
    """The program `mount.dfs`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.mount.mount_helper import main

        return main

    start(load)


def umount_dfs() -> None:
    """The program `umount.dfs`."""

    def load() -> Callable[[], None]:
        from dfsfuse.cli.mount.umount_helper import main

        return main

    start(load)
