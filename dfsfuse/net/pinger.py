"""Tries servers that are down, finds killed ones, and asks full ones for room, so that no request has to.

One thread per `Pinger`, between `start` and `stop`; it is a daemon, so a process that forgets `stop` can end. A fork
does not take it along: start it after the fork.
"""

from __future__ import annotations

import logging
from typing import Final

from dfs_server.protocol.messages import GetPosition, GetStatus
from dfsfuse.common.worker import Worker
from dfsfuse.net.exchange import Call, Exchange, Failure
from dfsfuse.net.lines import Lines
from dfsfuse.net.stalls import PING_S

STOP_S: Final = 2.0
GLANCE_S: Final = 0.1
"""How often the thread looks up from trials in progress: for `stop`, and for trials that are due meanwhile."""

WATCH_S: Final = 0.2
"""How often idle connections are checked for having been closed by their server."""

log = logging.getLogger(__name__)


class Pinger:
    """The thread."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._worker: Worker | None = None
        self._under_trial: set[int] = set()  # this and the next: used by the thread only
        self._told: set[str] = set()  # what was logged about servers that a person must fix

    def start(self) -> None:
        """Start the thread if it is not running."""
        if self._worker is None:
            self._worker = worker = Worker("dfsfuse-pinger", self._pause_s, "trying servers", stop_s=STOP_S)
            self._lines.on_trial_due = worker.wake
            worker.start(lambda: self._step(worker))
            self._lines.health.tried_elsewhere = True

    def stop(self) -> None:
        """Stop it; returns when it has ended (unless the name service blocks it; then it ends by itself)."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self._lines.health.tried_elsewhere = False

    def _pause_s(self) -> float:
        due_at, _ = self._lines.health.next_trial()
        return WATCH_S if due_at is None else max(0.0, min(WATCH_S, due_at - self._lines.clock()))

    def _step(self, worker: Worker) -> None:
        """Carry out the trials that are due, and those that fall due meanwhile; then look for servers that are gone."""
        self._under_trial.clear()
        with Exchange(self._lines, trial=True) as exchange:
            self._begin_due(exchange)
            while exchange.unfinished() and not worker.is_stopping():
                self._glance(exchange)
                self._begin_due(exchange)
        self._lines.notice_hang_ups()

    def _begin_due(self, exchange: Exchange) -> None:
        """Begin the trials that are due now."""
        _, down = self._lines.health.next_trial()
        for id in down:
            if id not in self._under_trial and self._lines.health.claim(id):
                self._lines.look_up(id)
                self._under_trial.add(id)
                exchange.start(Call(id, GetPosition(), stall_s=PING_S))
        for id in self._lines.health.to_ask_for_room():
            if id not in self._under_trial:
                self._under_trial.add(id)
                exchange.start(Call(id, GetStatus(), stall_s=PING_S))

    def _glance(self, exchange: Exchange) -> None:
        outcome = exchange.next(GLANCE_S)
        if outcome is not None:
            self._under_trial.remove(outcome.call.server)
            if isinstance(outcome, Failure) and outcome.text not in self._told and outcome.error is not None:
                log.warning("%s", outcome.text)
                self._told.add(outcome.text)
