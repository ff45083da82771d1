"""A fake log with the interface of `QuorumLog`, to which others write as well: a scripted rival commits at a chosen
moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from support.clock import Clock

from dfs_server.protocol import joins
from dfs_server.protocol.messages import Change, Items, ReadKeys, ReadRange, Values
from dfsfuse.log.lease import Lease
from dfsfuse.log.proposer import Point
from dfsfuse.log.state import Contents, LogState, News
from dfsfuse.namespace.map.log_map import LogMap


@dataclass
class SharedLog:
    """The log and map that the servers hold."""

    map: dict[bytes, bytes] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def put(self, **values: str) -> None:
        """Commit as another client."""
        self.commit({key.encode(): value.encode() for key, value in values.items()}, ())

    def commit(self, puts: dict[bytes, bytes], deletes: tuple[bytes, ...]) -> None:
        self.map.update(puts)
        for key in deletes:
            self.map.pop(key, None)
        slot = len(self.changes) + 1
        self.changes.append(Change(slot, b"%d" % slot, b"author", slot, (*puts, *deletes)))


class FakeLog:
    """One client's `QuorumLog`."""

    def __init__(self, shared: SharedLog, clock: Clock) -> None:
        self.shared = shared
        self.state = LogState(b"me")
        self.slot = 0
        self.asked: list[str] = []
        self.committed: list[Contents] = []
        self.gives_lease = False
        self.is_wanted = False
        """Whether another client waits to write."""
        self.excused_ago_s = float("inf")
        self.settled: Callable[[], None] = lambda: None
        self.clock = clock
        self.before_commit: list[Callable[[], None]] = []
        self.before_read: list[Callable[[], None]] = []
        self.on_lead: list[Callable[[], None]] = []
        self.has_quorum = True
        self.is_hurried = False
        self.joins = True
        """Whether its servers know `ReadRange.join`; those of version 0.1.0 do not."""

    @property
    def client(self) -> bytes:
        return self.state.client

    @property
    def news(self) -> News:
        return self.state.news

    @news.setter
    def news(self, news: News) -> None:
        self.state.news = news

    def _learn(self) -> None:
        self.news.changes.extend(self.shared.changes[self.slot :])
        self._is_at(len(self.shared.changes))

    def _is_at(self, slot: int) -> None:
        self.slot = slot
        self.state.known = Point(slot, b"%d" % slot)

    def is_stalled(self) -> bool:
        return False

    def hurry(self) -> None:
        self.is_hurried = True

    def catch_up(self, *, recall: bool = True) -> bool:
        self.asked.append("catch up")
        self._learn()
        return self.has_quorum

    def read_beside(self, request: ReadKeys | ReadRange) -> Values | Items | None:
        if self.before_read:
            self.before_read.pop(0)()
        slot = len(self.shared.changes)
        match request:
            case ReadKeys(keys=keys):
                self.asked.append("keys")
                return Values(slot, tuple(self.shared.map.get(key) for key in keys))
            case ReadRange(_, _, start, end, limit, join, join_key):
                self.asked.append("range")
                return Items(slot, *self._items(start, end, limit, join, join_key))

    def catch_up_and_read(self, request: ReadKeys | ReadRange, *, recall: bool) -> tuple[bool, Values | Items | None]:
        reply = self.read_beside(request)
        return self.catch_up(recall=recall), reply

    def learn_until(self, slot: int) -> None:
        self._learn()

    def _items(
        self, start: bytes, end: bytes, limit: int, join: bytes, join_key: bytes
    ) -> tuple[tuple[tuple[bytes, bytes], ...], bool, tuple[tuple[bytes, bytes], ...]]:
        found = sorted((key, value) for key, value in self.shared.map.items() if start <= key < end)
        named = joins.named(join, join_key, found[:limit]) if join and self.joins else []
        joined = tuple((key, self.shared.map[key]) for key in named if key in self.shared.map)
        return tuple(found[:limit]), len(found) > limit, joined

    def read_keys(self, keys: tuple[bytes, ...]) -> Values:
        if self.before_read:
            self.before_read.pop(0)()
        self.asked.append("keys")
        self._learn()
        return Values(self.slot, tuple(self.shared.map.get(key) for key in keys))

    def read_range(self, start: bytes, end: bytes, limit: int, join: bytes = b"", join_key: bytes = b"") -> Items:
        if self.before_read:
            self.before_read.pop(0)()
        self.asked.append("range")
        self._learn()
        return Items(self.slot, *self._items(start, end, limit, join, join_key))

    def commit(self, contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        if self.before_commit:
            self.before_commit.pop(0)()
        self.asked.append("commit")
        self._learn()
        if conflicts(self.news):
            return False
        self.shared.commit(dict(contents.puts), contents.deletes)
        self.committed.append(contents)
        self._is_at(self.slot + 1)
        self.state.leased, self.state.wanted = self.gives_lease, self.is_wanted
        return True

    def lead(self) -> None:
        if self.on_lead:
            self.on_lead.pop(0)()

    def want_lease(self) -> None:
        pass

    def settle(self) -> None:
        self.asked.append("settle")
        if len(self.committed) == 2:
            self.settled()

    def writable(self) -> bool:
        return True


def family_of(key: bytes) -> bytes | None:
    return b"d" if key.startswith(b"d") else None


class ManualWakeEvent:
    """Takes the place of the worker's event: the test decides when work is done. `woken` is called once."""

    def __init__(self, woken: Callable[[], None] = lambda: None) -> None:
        self.woken = woken

    def set(self) -> None:
        woken, self.woken = self.woken, lambda: None
        woken()

    def clear(self) -> None:
        pass


def answer_early(store: LogMap, lease_s: float = 10.0, woken: Callable[[], None] = lambda: None) -> None:
    """Answer changes before their commit from now on, as if there were a worker."""
    store.state.lease = Lease(lease_s)
    store.committer.has_worker = True
    store.committer.wake_event = ManualWakeEvent(woken)
