"""One request to each of several servers, and the outcomes as they come, until no server is worth waiting for any more.

The caller says before each wait how long it may take, and judges the outcomes. What does more than that has a loop of
its own: a race, which replaces servers while it waits (`dfsfuse.data.transport`); a procedure of the log, which decides
by each answer what is asked next (`dfsfuse.log.driving`); requests in any number, of which more are made meanwhile, and
which a stop ends within a moment (`dfsfuse.upkeep.asking`); and trials, which never end (`pinger`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol

from dfsfuse.net.calls import Answer, Call, Failure


class ExchangeLike(Protocol):
    """Requests in parallel: see `dfsfuse.net.exchange.Exchange`."""

    def start(self, call: Call) -> None: ...
    def next(self, timeout_s: float | None) -> Answer | Failure | None: ...
    def unfinished(self) -> int: ...
    def __enter__(self) -> ExchangeLike: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Asked:
    """Servers that were asked, each once. Use it within the exchange."""

    def __init__(self, exchange: ExchangeLike, calls: Iterable[Call]) -> None:
        self._exchange = exchange
        self.waiting: set[int] = set()
        """The servers of which no outcome is known yet: in the end those that lag."""
        for call in calls:
            self.waiting.add(call.server)
            exchange.start(call)

    def outcomes(self, patience_s: Callable[[], float | None] = lambda: None) -> Iterator[Answer | Failure]:
        """Yield the outcomes until all are known, or none has come within `patience_s`, which is called before each
        wait (None: until the call's own deadline)."""
        while self.waiting:
            outcome = self._exchange.next(patience_s())
            if outcome is None:
                return
            self.waiting.discard(outcome.call.server)
            yield outcome
