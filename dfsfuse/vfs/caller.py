"""Who asks for an operation: one value, made by a binding or a command, and passed down unchanged. Values only."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from dfsfuse.namespace.ops.directories import Route


class Caller(msgspec.Struct, frozen=True):
    """Who asks for an operation, and by which names."""

    uid: int
    """The owner of what the operation creates."""
    gid: int
    """Its group, unless its folder is set-group-ID."""
    route: Route = ()
    """The names by which the caller has reached the inodes that it passes. If one of them leads elsewhere by the time
    that the operation takes effect, nothing is done (ESTALE). Empty if it has reached them by an open file."""
    holds: bool = False
    """Whether what the operation finds or creates is needed until `Vfs.forget`, even if this mount removes its last
    name: as inodes that the kernel knows are on a local disk."""


SUPERUSER: Final = Caller(0, 0)
"""The default for operations that create nothing."""


def this_process() -> Caller:
    """Return the caller for what this process does on its own behalf."""
    return Caller(os.geteuid(), os.getegid())
