"""How often an operation is run, and when its outcome counts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.map.cache import Changes
from dfsfuse.namespace.map.state import MapState
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.map.views import CachedView, MissingError

R = TypeVar("R")

RUNS_BESIDE: Final = 20
"""At most this many times does an operation run beside the log before it is run with the log, where less
interferes."""
RUNS: Final = 200
RUNS_FOR_S: Final = 10.0


class Run(Generic[R]):
    """The outcome of an operation that changes nothing, on a state that is perhaps not the newest."""

    __slots__ = ("_result", "error", "lacks", "view")

    def __init__(self, work: Callable[[View], R], view: CachedView) -> None:
        self.view = view
        self.lacks = False
        """Whether the cache lacked something that it needs."""
        self.error: Exception | None = None
        try:
            self._result = work(view)
        except MissingError:
            self.lacks = True
        except Exception as error:  # noqa: BLE001 - raised by `answer`, if it counts
            self.error = error

    def counts_after(self, changes: Changes) -> bool:
        """Return whether the outcome would be the same after these changes. Otherwise it is void."""
        counts = not (self.lacks or self.view.is_touched(changes.keys, all_of_it=changes.all))
        if not counts:
            self.error = None  # it refers to this object through its traceback
        return counts

    def answer(self, answered: Callable[[R], None] | None) -> R:
        """Return it, or raise it."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None
        if answered is not None:
            answered(self._result)
        return self._result


def attempts(state: MapState, excused_ago_s: Callable[[], float]) -> Iterator[CachedView]:
    """Yield a fresh view for each run with the log, while there is time; a run that begins in time and lacks something
    is followed by one more. Raises UnavailableError when it gives up."""
    state.cache.trim()
    until = state.clock() + RUNS_FOR_S
    overtaken = False
    for _ in range(RUNS):
        now = state.clock()
        until = max(until, now - excused_ago_s() + RUNS_FOR_S)
        is_late = now > until
        view = CachedView(state.cache)
        yield view
        overtaken |= not view.lacks_something()
        if is_late:
            break
    if overtaken:
        raise UnavailableError("other clients change the same files without pause: try again")
    raise UnavailableError("the servers did not send everything that this operation needs in time: try again")
