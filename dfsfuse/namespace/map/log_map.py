"""The map's client with threads: puts its parts together, and carries out their procedures over a `QuorumLog`, on the
caller's thread.

Locks: `_log_lock` is held while the log is used, over the network. `_lock` is held while the client's own code runs,
from one step to the next, and never over the network. What is read beside the log (`Beside`) is waited for without
either: any number of threads at once. Never acquire `_log_lock` while holding `_lock`.

Threads: one, the worker, which commits what was answered before its commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dfsfuse.common import withdrawal
from dfsfuse.common.clocks import lease_clock
from dfsfuse.common.events import Events
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.state import News
from dfsfuse.namespace.map.cache import MapCache
from dfsfuse.namespace.map.client import MapClient
from dfsfuse.namespace.map.committing import Committer
from dfsfuse.namespace.map.fetching import Companions, Fetcher, NoCompanions
from dfsfuse.namespace.map.journal import PendingChange
from dfsfuse.namespace.map.losses import Witness
from dfsfuse.namespace.map.refreshing import Refresher
from dfsfuse.namespace.map.state import MapState
from dfsfuse.namespace.map.steps import (
    AwaitWork,
    Beside,
    CatchUp,
    Commit,
    FetchKeys,
    FetchRange,
    Lead,
    LearnUntil,
    Linger,
    NotifyChanged,
    Pause,
    Procedure,
    Settle,
    Step,
    WithLog,
)
from dfsfuse.namespace.map.transactions import Begun, Transaction, View
from dfsfuse.namespace.map.worker import Worker

T = TypeVar("T")


class LogMap:
    """The namespace's map, over its log. Implements `MapStore`."""

    def __init__(
        self,
        quorum_log: QuorumLog,
        family_of: Callable[[bytes], bytes | None],
        clock: Callable[[], float] = lease_clock,
        sleep: Callable[[float], None] = time.sleep,
        is_newest: Callable[[View, frozenset[int]], bool] | None = None,
        wait_s: float = 0.0,
        companions: Companions | None = None,
        join_of: Callable[[bytes], bytes] = lambda _: b"",
        events: Events | None = None,
    ) -> None:
        """`is_newest`: see `Refresher`. `wait_s`: see `Committer`. `companions`, `join_of`: see `Fetcher`."""
        self._log = quorum_log
        self._sleep = sleep
        self._log_lock = threading.Lock()
        self._lock = threading.Lock()
        self._wake_event = threading.Event()
        self._life = threading.Lock()
        """Held until the end: the worker lingers by waiting for it, which costs a fraction of waiting for an event."""
        self._life.acquire()

        def excused_ago_s() -> float:
            return quorum_log.excused_ago_s

        self.state = MapState(quorum_log.state, MapCache(family_of), clock)
        self.committer = Committer(self.state, self._wake_event, wait_s)
        fetcher = Fetcher(family_of, self.state, companions or NoCompanions(), join_of)
        self.refresher = Refresher(self.state, self.committer, fetcher, excused_ago_s, is_newest)
        self.client = MapClient(self.state, self.refresher, self.committer, excused_ago_s)
        self.worker = Worker(self.state, self.committer)
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self._events = events or Events()

    def start(self) -> None:
        """Start the worker. Without it changes are committed before they are answered."""
        self._log.want_lease()
        self.committer.has_worker = True
        self._thread.start()

    # -------------------------------------------------------------- for users (see `MapStore`)

    def read(
        self,
        work: Callable[[View], T],
        *,
        max_age_s: float = 0.0,
        doubted: type[OSError] | None = None,
        answered: Callable[[T], None] | None = None,
    ) -> T:
        """See `MapStore.read`."""
        return self.run(self.client.read(work, max_age_s, doubted, answered))

    def transact(self, work: Callable[[Transaction], T], *, durable: bool = True, is_followed: bool = False) -> T:
        """See `MapStore.transact`."""
        checked = work if durable else _unless_withdrawn(work)
        return self.run(self.client.transact(checked, durable=durable, is_followed=is_followed))

    def begin(self, work: Callable[[Transaction], T]) -> Begun[T]:
        """See `MapStore.begin`."""
        answered = self.run(self.client.begin(work, durable=True))
        return Begun(answered.result, lambda: self._see_to(answered.change))

    def _see_to(self, change: PendingChange | None) -> None:
        if change is not None:
            self.run(self.client.see_to(change, durable=True))

    def witness(self) -> Witness:
        """See `MapStore.witness`."""
        with self._lock:
            return self.state.journal.losses.witness()

    def flush(self, witness: Witness | None = None) -> None:
        """See `MapStore.flush`."""
        self.run(self.client.flush(witness))

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """See `MapStore.recall`."""
        with self._lock:
            return self.state.recall(keys)

    def was_made(self, sequence: int) -> bool:
        """See `MapStore.was_made`. It is called within a transaction, which holds `_lock`."""
        return self.state.journal.was_made(sequence)

    def writable(self) -> bool:
        """See `MapStore.writable`."""
        return self._log.writable()

    def end_within(self, patience_s: float) -> None:
        """See `MapStore.end_within`. A signal handler may call it, so it takes no lock."""
        self.committer.end_within(patience_s)
        self._log.hurry()

    def is_stalled(self) -> bool:
        """See `MapStore.is_stalled`."""
        return self._log.is_stalled()

    def owes(self) -> bool:
        """See `MapStore.owes`."""
        with self._lock:
            return bool(len(self.state.journal))

    def close(self) -> None:
        """See `MapStore.close`."""
        self.committer.stop_working()
        if self._life.locked():
            self._life.release()
        if self._thread.ident is not None:
            self._thread.join()
        self.run(self.client.close())

    # -------------------------------------------------------------- carrying out

    def _work(self) -> None:
        self.run(self.worker.work())

    def run(self, procedure: Procedure[T]) -> T:
        """Carry out a procedure of the client."""
        resume: Callable[[Any], Step] = procedure.send
        value: object = None
        while True:
            try:
                with self._lock:
                    step = resume(value)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                value = None  # an error refers to this frame through its traceback
            try:
                resume, value = procedure.send, self._carry_out(step)
            except Exception as error:  # noqa: BLE001 - it is the procedure's
                resume, value = procedure.throw, error
            except BaseException:  # an interrupted thread no longer waits for anything
                with self._lock:
                    procedure.close()
                raise

    def _carry_out(self, step: Step) -> object:  # noqa: PLR0912 - one branch a step
        match step:
            case WithLog(procedure):
                with self._log_lock:
                    return self.run(procedure)
            case Commit(contents, conflicts):
                return self._log.commit(contents, lambda news: self._locked(conflicts, news))
            case Beside(point, fetch):
                return self._log.read_beside(fetch.at(point))
            case CatchUp(recall, None):
                return self._log.catch_up(recall=recall), None
            case CatchUp(recall, Beside(point, fetch)):
                return self._log.catch_up_and_read(fetch.at(point), recall=recall)
            case LearnUntil(slot):
                self._log.learn_until(slot)
            case FetchKeys(keys):
                return self._log.read_keys(keys)
            case FetchRange(start, end, limit, join, join_key):
                return self._log.read_range(start, end, limit, join, join_key)
            case AwaitWork(seconds):
                return self._wake_event.wait(seconds)
            case Linger(seconds):
                if self._life.acquire(timeout=seconds):
                    self._life.release()
            case Pause(seconds):
                self._sleep(seconds)
            case Settle():
                self._log.settle()
            case Lead():
                self._log.lead()
            case NotifyChanged(keys):
                self._events.on_keys_changed(keys)
        return None

    def _locked(self, conflicts: Callable[[News], bool], news: News) -> bool:
        with self._lock:
            return conflicts(news)


def _unless_withdrawn(work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """Check each time the work runs, since it is about to change something; also when it runs again because another
    client was faster."""

    def checked(transaction: Transaction) -> T:
        withdrawal.check()
        return work(transaction)

    return checked
