"""Tries servers that are down, finds killed ones, and asks full ones for room, so that no request has to.

One thread per `Pinger`, between `start` and `stop`; it is a daemon, so a process that forgets `stop` can end. A fork
does not take it along: start it after the fork.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from dfs_server.protocol.messages import GetPosition, GetStatus
from dfsfuse.net.exchange import Call, Exchange, Failure
from dfsfuse.net.lines import Lines
from dfsfuse.net.stalls import PING_S

STOP_S: Final = 2.0
GLANCE_S: Final = 0.1
"""How often the thread looks up from trials in progress: for `stop`, and for trials that are due meanwhile."""

WATCH_S: Final = 0.2
"""How often idle connections are checked for having been closed by their server."""

RETRY_S: Final = 1.0
"""The pause after an unexpected failure."""

log = logging.getLogger(__name__)


class Pinger:
    """The thread."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._under_trial: set[int] = set()  # this and the next: used by the thread only
        self._told: set[str] = set()  # what was logged about servers that a person must fix

    def start(self) -> None:
        """Start the thread if it is not running."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dfsfuse-pinger", daemon=True)
            self._thread.start()
            self._lines.health.tried_elsewhere = True

    def stop(self) -> None:
        """Stop it; returns when it has ended (unless the name service blocks it; then it ends by itself)."""
        if self._thread is not None:
            self._stopping = True
            self._lines.changed.set()
            self._thread.join(STOP_S)
            self._thread = None
            self._lines.health.tried_elsewhere = False

    def _run(self) -> None:
        while not self._stopping:
            self._under_trial.clear()
            try:
                with Exchange(self._lines, trial=True) as exchange:
                    while not self._stopping:
                        self._lines.changed.clear()
                        self._look_after(exchange)
            except Exception:
                log.exception("trying servers failed unexpectedly; it goes on")
                self._lines.changed.clear()
                if not self._stopping:
                    self._lines.changed.wait(RETRY_S)

    def _look_after(self, exchange: Exchange) -> None:
        """Begin the trials that are due, and wait a moment."""
        due_at, down = self._lines.health.next_trial()
        for id in down:
            if id not in self._under_trial and self._lines.health.claim(id):
                self._lines.look_up(id)
                self._under_trial.add(id)
                exchange.start(Call(id, GetPosition(), stall_s=PING_S))
        for id in self._lines.health.to_ask_for_room():
            if id not in self._under_trial:
                self._under_trial.add(id)
                exchange.start(Call(id, GetStatus(), stall_s=PING_S))
        if exchange.unfinished():
            self._glance(exchange)
        else:
            wait_s = WATCH_S if due_at is None else min(WATCH_S, due_at - self._lines.clock())
            self._lines.changed.wait(max(0.0, wait_s))
            self._lines.notice_hang_ups()

    def _glance(self, exchange: Exchange) -> None:
        outcome = exchange.next(GLANCE_S)
        if outcome is not None:
            self._under_trial.remove(outcome.call.server)
            if isinstance(outcome, Failure) and outcome.text not in self._told and outcome.error is not None:
                log.warning("%s", outcome.text)
                self._told.add(outcome.text)
