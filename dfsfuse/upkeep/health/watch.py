"""A mount's health messages in its log: one line whenever health has changed, the same that `dfc status` would show.

Knows what the mount knows: which servers answer, what they say about themselves when asked, and what a survey has just
counted. Without a survey the state of the copies is unknown. One thread at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dfs_server.protocol.messages import GetStatus, ServerStatus
from dfsfuse.data.transport import ClusterLike
from dfsfuse.net.exchange import Answer
from dfsfuse.upkeep.asking import ask
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.health import copies
from dfsfuse.upkeep.health.copies import Copies, Knowledge
from dfsfuse.upkeep.health.servers import Server, State, from_status, newest_slot
from dfsfuse.upkeep.health.verdict import verdict

log = logging.getLogger(__name__)


class Watch:
    """See the module. `wait` sleeps for a number of seconds and returns whether to stop."""

    def __init__(self, cluster: ClusterLike, wait: Callable[[float], bool]) -> None:
        self._cluster = cluster
        self._wait = wait
        self._answering, self._full = cluster.usable(), cluster.full()
        self._said = ""
        self.has_looked = False
        """Whether the state was ever logged."""

    def has_changed(self) -> bool:
        """Return whether other servers answer, or are full, than at the last look. Sends no requests."""
        return (self._cluster.usable(), self._cluster.full()) != (self._answering, self._full)

    def look(self, counted: Report | None) -> None:
        """Look at the servers, and log the state if it has changed. `counted`: the copies, if they were just counted.
        Raises `StoppedError`."""
        self._answering, self._full = self._cluster.usable(), self._cluster.full()
        self.has_looked = True
        known = copies.UNKNOWN
        if counted is not None:
            known = copies.known(
                counted, all_counted=True, record=None, seen_now=(), noted=bool(counted.noted), now_ns=0
            )
        said = f"{verdict(self._servers(counted), known).sentence}{_about(known)}"
        if said != self._said:
            self._said = said
            log.info("health: %s", said)

    def _servers(self, counted: Report | None) -> dict[int, Server]:
        outcomes = ask(self._cluster, dict.fromkeys(sorted(self._answering), GetStatus()), self._wait)
        found = {
            id: outcome.reply
            for id, outcome in outcomes.items()
            if isinstance(outcome, Answer) and isinstance(outcome.reply, ServerStatus)
        }
        newest = newest_slot(found.values())
        lacks = counted.absent if counted else {}
        return {
            id: from_status(name, found[id], newest, lacks.get(id, 0)) if id in found else Server(name, State.DOWN)
            for id, name in self._cluster.names.items()
        }


def _about(known: Knowledge) -> str:
    if known.copies is Copies.UNKNOWN:
        return ""
    if known.copies is Copies.WHOLE:
        return " All data has its two copies."
    text = f" Of {known.files} files {known.degraded} have fewer than two copies of some data"
    return f"{text}, and {known.incomplete} cannot be read." if known.incomplete else f"{text}."
