"""Repairs a namespace's log in the background, on a thread of its own: in every mount, and in `dfc heal` while it runs.

Other commands and readers have none: they end in a moment, or only read the map, and whatever a quorum needs is passed
on by the writer that needs it (`dfsfuse.log.writing`).

- Servers that missed batches are brought up to date (`dfsfuse.log.repair`). A copy of the whole map may take minutes:
  it is made page by page, to one server at a time, and after each second of it the repairer attends to everything else.
  There is no deadline for the whole: it ends when a page fails.
- A batch that stays in doubt has lost its writer. The repairer finishes it under its own name: until then the batch
  depends on the memory of the servers that accepted it.

Threads: `wake` may be called from any; `start` and `close` by the owner. Everything else belongs to the one thread.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from dfs_server.protocol.messages import Error, Position
from dfs_server.protocol.status import Status
from dfsfuse.common.worker import Worker
from dfsfuse.errors import DfsError
from dfsfuse.log.driving import drive, usual
from dfsfuse.log.procedures import ALL, DeadlineError, Procedure, R
from dfsfuse.log.proposer import Point
from dfsfuse.log.reading import catch_up
from dfsfuse.log.repair import MapCopy, begin_copy, copy_page, look, pass_on
from dfsfuse.log.state import LogState, News
from dfsfuse.net.cluster import Cluster

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
LOOK_IDLE_EVERY_S: Final = 5.0
"""How often the servers are checked: while some are missing or behind, and while all is well."""
STEP_DEADLINE_S: Final = 60.0
"""The longest that one step may take: to settle, to finish what is in doubt, to pass on batches, to copy one page."""
RETRY_MAX_S: Final = 120.0
"""A server that could not be brought up to date is left alone for twice as long each time, at most for this long: a map
that is read again and again for a copy that fails is work for all servers."""
THREAD_NAME: Final = "log-repairer"
RETRY_COPYING_S: Final = 5.0
"""When to check again whether another client is still copying the map there."""


class Repairer:
    """The thread. A context manager, which starts and closes it."""

    def __init__(
        self,
        cluster: Cluster,
        known: Callable[[], Point],
        *,
        client: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`known`: the client's known point, queried by the thread. `client`: the author of what is finished."""
        self._cluster = cluster
        self._known = known
        self._clock = clock
        self._log = LogState(client if client is not None else random.Random().randbytes(8), spared=cluster.health.log)
        """Its own view of the log: in doubt, it leads for a moment under its own name."""
        self._pace = usual(cluster)
        self._doubt = b""
        """The batch that was in doubt at the last check."""
        self._retry_at: dict[int, tuple[float, float]] = {}
        """When to retry bringing a server up to date, and how long the wait was."""
        self._copy: MapCopy | None = None
        """The copy of the map in progress."""
        self._current: frozenset[int] = frozenset()
        """Servers that were up to date at the last check; the others are checked again and again."""
        self._thread = Worker(THREAD_NAME, self._pause_s, "repairing the log", stop_s=None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the thread; it first checks a while later, or when it is woken."""
        self._thread.start(self._step)

    def wake(self) -> None:
        """Check now: a server is seen to be behind. Never waits."""
        self._thread.wake()

    def close(self) -> None:
        """Stop the thread after the current step. May be called even if it was never started."""
        self._thread.close()

    def _pause_s(self) -> float:
        if self._copy is not None:
            return 0.0
        return LOOK_IDLE_EVERY_S if len(self._current) == len(ALL) else LOOK_EVERY_S

    def _step(self) -> None:
        try:
            self._look()
        except Exception:
            self._copy, self._current = None, frozenset()  # a copy is started over
            raise

    def _look(self) -> None:
        current: set[int] = set()
        try:
            positions = self._drive(look(self._known()))
            self._finish_doubt(positions)
            current = self._bring_up_to_date(positions)
            self._current = frozenset(current)
        except (DfsError, DeadlineError) as error:
            log.debug("repairing the log: %s", error)
        if self._copy is not None:
            self._go_on_copying(self._copy, current)

    def _finish_doubt(self, positions: dict[int, Position]) -> None:
        """Finish a batch that is still in doubt at the next check and so has lost its writer, so that it does not
        depend on the memory of two servers only."""
        tails = {position.tail_digest for position in positions.values() if position.tail_digest}
        if self._doubt in tails:
            self._drive(catch_up(self._log, recall=False))
            self._log.news = News()  # they are not used here, and would be kept forever
            self._drive(look(self._log.known))
        self._doubt = min(tails, default=b"")

    def _bring_up_to_date(self, positions: dict[int, Position]) -> set[int]:
        """Pass on batches; begin a copy of the map where that is not enough. Returns the up-to-date servers."""
        best = max((position.applied for position in positions.values()), default=0)
        newest = {server for server, position in positions.items() if position.applied == best}
        current = {server for server in newest if not positions[server].wants_copy}
        self._retry_at = {server: at for server, at in self._retry_at.items() if server not in current}
        for server in sorted(positions.keys() - current):
            if self._is_copying_to(server, positions[server]) or not self._may_try(server):
                continue
            passed = self._drive(pass_on(server, sorted(newest - {server})))
            missing = best - positions[server].applied
            if missing and passed.applied >= best:
                level = logging.INFO if missing > 1 else logging.DEBUG
                log.log(level, "%s got %d batches that it missed", self._cluster.names[server], missing)
            if passed.trimmed or positions[server].wants_copy:
                self._begin_copy(server, current)
            elif passed.applied >= best:
                current.add(server)
                del self._retry_at[server]
        return current

    def _may_try(self, server: int) -> bool:
        """Return whether it is time to try to bring this server up to date; if so, the next time is later."""
        now = self._clock()
        retry_at, pause_s = self._retry_at.get(server, (now, LOOK_EVERY_S / 2))
        if now < retry_at:
            return False
        pause_s = min(2 * pause_s, RETRY_MAX_S)
        self._retry_at[server] = now + pause_s, pause_s
        return True

    # ------------------------------------------------------------------ copying the map

    def _is_copying_to(self, server: int, position: Position) -> bool:
        """Return whether a copy to this server is in progress. One that it no longer needs is dropped."""
        copy = self._copy
        if copy is None or copy.server != server:
            return False
        if position.applied >= copy.point.slot and not position.wants_copy:
            self._copy = None
        return self._copy is not None

    def _begin_copy(self, server: int, current: set[int]) -> None:
        """Begin a copy if no other client copies there, and no other copy of ours is in progress."""
        if self._copy is None:
            begun = self._drive(begin_copy(server, sorted(current), self._log.next_copy()))
            if isinstance(begun, MapCopy):
                self._copy = begun
                log.info("%s gets a copy of the map", self._cluster.names[server])
            if not isinstance(begun, Error) or begun.status != Status.COPYING:
                return
        self._retry_at[server] = self._clock() + RETRY_COPYING_S, LOOK_EVERY_S

    def _go_on_copying(self, copy: MapCopy, current: set[int]) -> None:
        """Copy page by page, until it is time to attend to everything else."""
        sources = sorted(set(ALL) - {copy.server}, key=lambda server: (server not in current, server))
        name = self._cluster.names[copy.server]
        until = self._clock() + LOOK_EVERY_S
        self._copy = None
        try:
            while self._drive(copy_page(copy, sources)):
                if copy.applied:
                    self._retry_at.pop(copy.server, None)
                    self._thread.wake()  # it lacks what was written meanwhile
                    log.info("%s has a copy of the map: %d records", name, copy.items)
                    return
                if self._clock() >= until or self._thread.is_stopping():
                    self._copy = copy
                    return
        except (DfsError, DeadlineError) as error:
            log.debug("copying the map: %s", error)
        log.info("the copy of the map to %s failed, and starts again", name)

    def _drive(self, procedure: Procedure[R]) -> R:
        deadline = self._clock() + STEP_DEADLINE_S
        return drive(procedure, self._cluster, deadline, self._clock, lambda _: None, pace=self._pace)
