"""What the map of each individual server refers to, for code that is about to delete unreferenced data.

Reading the map yields one server's copy. Its disk may have lost a record or flipped a bit in one, and then whatever
that record refers to looks like an orphan, including both copies of all its pieces. So nothing counts as an orphan
until the maps of three servers say so independently: at most one of them is damaged. A server that is behind may name
too much, which does no harm.

Single-threaded; memory is one page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfs_server.protocol.batches import NO_BATCH
from dfs_server.protocol.limits import QUORUM
from dfs_server.protocol.messages import Items, ReadRange
from dfsfuse.data import extents
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import StoppedError
from dfsfuse.namespace.records import keys
from dfsfuse.net.exchange import Answer
from dfsfuse.upkeep.asking import ask

PAGE_ITEMS: Final = 1000


def tell_references(cluster: ClusterLike, wait: Callable[[float], bool], refers: Callable[[bytes], None]) -> str:
    """Call `refers` with each segment that any server's map refers to. Returns why that is not enough to know, or "".

    Raises `StoppedError`, AuthenticationError.
    """
    whole = 0
    for server in sorted(cluster.names):
        start, end = keys.all_files_regions()
        while True:
            if wait(0.0):
                raise StoppedError
            outcome = ask(cluster, {server: ReadRange(0, NO_BATCH, start, end, PAGE_ITEMS)}, wait)[server]
            page = outcome.reply if isinstance(outcome, Answer) else None
            if not isinstance(page, Items):
                break
            for key, value in page.items:
                try:
                    segments = extents.decode(value).segments
                except OSError:
                    name = cluster.names[server]
                    return f"{name} has a record of a part of inode {keys.number_in(key)} that cannot be read"
                for segment in segments:
                    refers(segment.id)
            if not page.more or not page.items:
                whole += 1
                break
            start = page.items[-1][0] + b"\0"
    return "" if whole >= QUORUM else "too few servers show their maps to tell what is referred to"
