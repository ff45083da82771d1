"""`-o wait=SECONDS`: which operations wait for servers to return, rather than fail. Pure, apart from what it is passed.

A failed operation is repeated from its beginning, so it must have had no effect, or only effects that can be repeated:
- too few servers to write (`ReadOnlyError`), or to determine or return what is requested (`UnavailableError`,
  `IncompleteError`) while some are missing: it had no effect;
- a save that may or may not have been made (`MaybeDoneError`): the data is still here, and a save first checks whether
  it was made before (`dfsfuse.vfs.write.saving`).

So what a failing close() ends in any case, the program's locks, is not part of what is repeated: it ends after the last
attempt (`dfsfuse.fusekernel.dispatch`, `ENDINGS`), and other mounts find the data saved.

The creation or removal of a name is not repeated if its outcome is unknown: the second time, `mkdir` would say that the
folder exists. A loss (`LostError`) is reported immediately. While all servers answer, nothing waits: whatever is
missing then is lost for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfsfuse.errors import IncompleteError, MaybeDoneError, ReadOnlyError, UnavailableError

_SAVES: Final = frozenset({"flush", "fsync", "release"})


class Waiting:
    """The rule. `all_answer` says whether all servers are believed to answer; `is_ending` whether a program's thread is
    ending, so that no signal can end its wait any more."""

    def __init__(self, wait_s: float, all_answer: Callable[[], bool], is_ending: Callable[[int], bool]) -> None:
        self._wait_s = wait_s
        self._all_answer = all_answer
        self._is_ending = is_ending

    def may_wait_s(self, error: Exception, operation: str, thread: int) -> float:
        """How long an operation that has failed with this error may wait, in all; 0 if it may not."""
        if not self._wait_s or not self._is_for_want_of_servers(error, operation) or self._is_ending(thread):
            return 0.0
        return self._wait_s

    def _is_for_want_of_servers(self, error: Exception, operation: str) -> bool:
        match error:
            case ReadOnlyError():
                return True
            case UnavailableError() | IncompleteError():
                return not self._all_answer()
            case MaybeDoneError():
                return operation in _SAVES
        return False
