"""Notes copies that are found to be bad: `believed`, and what readers find where nothing heals at once (`dfc`, or a
mount that does not heal).

Only copies that their server believes to have are noted: a missing one is reported to everyone by the server itself.
What a reader found is written into the map (`dfsfuse.namespace.ops.bad_copies`) within seconds, or at the end; if too
few servers answer for that, it is retried, and forgotten when the process ends.

Threads: `found_bad` may be called from any thread, and never waits. Everything else belongs to the one thread, and to
the thread that closes it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from dfs_server.protocol.messages import MAX_HAVE_PIECES, Have, HavePieces
from dfsfuse.common.worker import Worker
from dfsfuse.data.extents import Segment
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import DfsError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.namespace.ops.bad_copies import Place
from dfsfuse.net.exchange import Answer
from dfsfuse.upkeep.asking import ask

EVERY_S: Final = 2.0
MAX_WAITING: Final = 1000

log = logging.getLogger(__name__)


def believed(
    cluster: ClusterLike, places: Iterable[Place], wait: Callable[[float], bool] = lambda _: False
) -> list[Place]:
    """Return those of these copies that their server, if it answers, says it has. Raises `StoppedError`."""
    of: dict[int, list[Place]] = {}
    for place in sorted(set(places)):
        of.setdefault(place[2], []).append(place)
    usable = cluster.usable()
    found: list[Place] = []
    while of := {server: rest for server, rest in of.items() if rest and server in usable}:
        step = {server: rest[:MAX_HAVE_PIECES] for server, rest in of.items()}
        of = {server: rest[MAX_HAVE_PIECES:] for server, rest in of.items()}
        requests = {
            server: HavePieces(tuple((segment, number) for segment, number, _ in part)) for server, part in step.items()
        }
        for server, outcome in ask(cluster, requests, wait).items():
            if isinstance(outcome, Answer) and isinstance(outcome.reply, Have):
                found += [place for place, has in zip(step[server], outcome.reply.flags, strict=False) if has]
    return found


class Noter:
    """See the module."""

    def __init__(self, cluster: ClusterLike, store: MapStore, time_ns: Callable[[], int] = time.time_ns) -> None:
        self._cluster = cluster
        self._store = store
        self._time_ns = time_ns
        self._found: deque[Place] = deque(maxlen=MAX_WAITING)
        self._thread = Worker("noter", EVERY_S, "noting bad copies")

    def found_bad(self, segment: Segment, number: int, server: int) -> None:
        """Record that a reader got no good copy of this piece there. Called from any thread."""
        self._found.append((segment.id, number, server))

    def start(self) -> None:
        """Begin."""
        self._thread.start(self.write)

    def write(self) -> None:
        """Note what was found since; what cannot be noted now waits for the next time."""
        places = list(dict.fromkeys(self._found.popleft() for _ in range(len(self._found))))
        if not places or not self._store.writable():
            self._found.extendleft(reversed(places))
            return
        try:
            bad_copies.note(self._store, believed(self._cluster, places), self._time_ns())
        except (DfsError, OSError) as error:
            log.info("%d bad copies could not be noted: %s", len(places), error)
            self._found.extendleft(reversed(places))

    def close(self) -> None:
        """Note what is left, if that is possible at once, and stop."""
        self._thread.close()
        self.write()
