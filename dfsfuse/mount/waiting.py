"""`-o wait=SECONDS`: which operations wait for servers to return, rather than fail. Pure but for what it is handed.

An operation that fails is done again from its beginning, so it must have done nothing, or nothing that is done twice:

- too few servers to write (`ReadOnlyError`), or to tell or to give what is asked for (`UnavailableError`,
  `IncompleteError`) while some are missing: nothing was done;
- a save of which it is not known whether it was made (`MaybeDoneError`): the data is still here, and a save looks
  whether it was made before (`dfsfuse.vfs.write.saving`).

So what a failing close() ends all the same, its locks, is not among what is done again: it ends after the last attempt
(`dfsfuse.fusekernel.dispatch`, `ENDINGS`), and other mounts find the data saved.

A name of which it is not known whether it was made or removed is not done again: the second time, `mkdir` would say
that it is there. What is lost (`LostError`) is told at once. With all servers there nothing is waited for: what is
missing then is missing for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfsfuse.errors import IncompleteError, MaybeDoneError, ReadOnlyError, UnavailableError

_SAVES: Final = frozenset({"flush", "fsync", "release"})


class Waiting:
    """The rule. `all_answer` says whether all servers are believed to answer; `is_ending` whether a program's thread is
    ending, so that no signal can end its waiting any more."""

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
