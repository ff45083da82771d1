"""The whole map as of one slot while others keep changing it, and whether all servers have the same map.

The snapshot is read in pages, each as of the slot that the server has reached by then. What changed in between is
learned from the log and reread, until nothing has changed meanwhile: then all of it is as of one slot. Servers are
compared page by page; keys that differ, perhaps only because one of them was asked a moment later, are asked for again,
and count only when two servers at the same slot disagree. Memory: the whole map and what is derived from it, about 3
KiB per file. Single-threaded; the log passed in must not be shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from dfs_server.protocol.messages import Items, ReadKeys, ReadRange, Request, Values
from dfsfuse.errors import UnavailableError
from dfsfuse.log import key_portions
from dfsfuse.log.key_portions import TooMuchAtOnceError, read_in_portions
from dfsfuse.log.proposer import Point
from dfsfuse.log.state import News
from dfsfuse.namespace.records import keys
from dfsfuse.net.exchange import Answer, Failure
from dfsfuse.net.stalls import MAP_S

PAGE_ITEMS: Final = 5000
READ_KEYS: Final = 256
ROUNDS: Final = 500
"""How many portions of changed keys are reread before giving up."""
TRIES: Final = 20
"""How often differing keys are asked for until two servers are at the same slot."""
PAUSE_S: Final = 0.1

OnProgress = Callable[[int], None]
"""Called with the number of items read."""


class Log(Protocol):
    """The part of `QuorumLog` that is used here."""

    @property
    def known(self) -> Point: ...
    def catch_up(self) -> bool: ...
    def take_news(self) -> News: ...
    def read_keys(self, keys: tuple[bytes, ...]) -> Values: ...
    def read_range(self, start: bytes, end: bytes, limit: int) -> Items: ...


class Asked(Protocol):
    """The part of `Cluster` that is used here."""

    @property
    def names(self) -> Mapping[int, str]: ...
    def usable(self) -> frozenset[int]: ...
    def ask(self, requests: Mapping[int, Request], *, stall_s: float) -> dict[int, Answer | Failure]: ...


@dataclass(frozen=True)
class Snapshot:
    """The map as of `slot`. `is_newest`: a quorum had nothing newer when this began."""

    items: dict[bytes, bytes]
    slot: int
    is_newest: bool


def snapshot(log: Log, on_progress: OnProgress = lambda _: None) -> Snapshot:
    """Return the whole map as of one slot, not older than the call. Raises UnavailableError."""
    is_newest = log.catch_up()
    log.take_news()
    items: dict[bytes, bytes] = {}
    stale: set[bytes] = set()
    start = b""
    while True:
        page = log.read_range(start, keys.END, PAGE_ITEMS)
        stale |= _changed(log.take_news())
        items.update(page.items)
        on_progress(len(items))
        if not page.more:
            break
        start = page.items[-1][0] + b"\0"
    for _ in range(ROUNDS):
        if not stale:
            return Snapshot(items, log.known.slot, is_newest)
        for part, reply in read_in_portions(log.read_keys, sorted(stale)[:READ_KEYS], READ_KEYS):
            stale.difference_update(part)
            stale |= _changed(log.take_news(), after=reply.applied, but=frozenset(part))
            for key, value in zip(part, reply.values, strict=True):
                if value is None:
                    items.pop(key, None)
                else:
                    items[key] = value
    raise UnavailableError("the namespace changes too fast to be read as a whole: try again when less is written")


def _changed(news: News, after: int = 0, but: frozenset[bytes] = frozenset()) -> set[bytes]:
    """Return the changed keys; of those in `but`, which were read at slot `after`, only those that changed later."""
    if news.forget:
        raise UnavailableError("the servers no longer know what changed meanwhile: try again when less is written")
    return {key for change in news.changes for key in change.keys if key not in but or change.slot > after}


# ------------------------------------------------------------------ comparing the servers


@dataclass(frozen=True)
class Comparison:
    """Which servers were compared, which are behind or do not answer (and why), and the keys at which two of them
    disagree at the same slot."""

    compared: frozenset[int]
    absent: dict[int, str]
    differing: dict[bytes, frozenset[int]]
    """By key: the servers that disagree with the majority."""
    undecided: int = 0
    """The number of keys that changed too often meanwhile to be compared."""


def compare(
    cluster: Asked, log: Log, on_progress: OnProgress = lambda _: None, pause: Callable[[float], object] = time.sleep
) -> Comparison:
    """Compare the maps of all servers. Raises UnavailableError, AuthenticationError."""
    log.catch_up()
    log.take_news()
    point = log.known
    absent = {server: "does not answer" for server in cluster.names if server not in cluster.usable()}
    differing: set[bytes] = set()
    start, seen = b"", 0
    while True:
        pages = _pages(cluster, absent, point, start, pause)
        if len(pages) < 2:
            return Comparison(frozenset(pages), absent, {})
        # Beyond the end of a page that is not the last, its server has more items that we do not know.
        ends = [page.items[-1][0] for page in pages.values() if page.more]
        end = min(ends, default=None)
        maps = [{key: value for key, value in page.items if end is None or key <= end} for page in pages.values()]
        first = maps[0]
        for other in maps[1:]:
            if other != first:
                differing |= {key for key in first.keys() | other.keys() if first.get(key) != other.get(key)}
        seen += len(first)
        on_progress(seen)
        if end is None:
            break
        start = end + b"\0"
    return _confirm(cluster, log, absent, sorted(differing), pause)


def _pages(
    cluster: Asked, absent: dict[int, str], point: Point, start: bytes, pause: Callable[[float], object]
) -> dict[int, Items]:
    request = ReadRange(point.slot, point.digest, start, keys.END, PAGE_ITEMS)
    pages: dict[int, Items] = {}
    for attempt in range(TRIES):
        if attempt:
            pause(PAUSE_S)
        wanted = [server for server in cluster.names if server not in absent and server not in pages]
        for server, outcome in cluster.ask(dict.fromkeys(wanted, request), stall_s=MAP_S).items():
            if isinstance(outcome, Failure):
                absent[server] = outcome.text
            elif isinstance(outcome.reply, Items):
                pages[server] = outcome.reply
        if len(pages) + len(absent) >= len(cluster.names):
            return pages
    for server in cluster.names:
        if server not in absent and server not in pages:
            absent[server] = "is behind: it does not have all changes yet, and gets them by itself"
    return pages


def _confirm(
    cluster: Asked, log: Log, absent: dict[int, str], suspects: list[bytes], pause: Callable[[float], object]
) -> Comparison:
    differing: dict[bytes, frozenset[int]] = {}
    undecided = 0

    def read(part: tuple[bytes, ...]) -> dict[int, Values] | None:
        return _at_one_slot(cluster, log, absent, part, pause)

    for part, replies in read_in_portions(read, suspects, READ_KEYS):
        if replies is None:
            undecided += len(part)
            continue
        for index, key in enumerate(part):
            said = {server: reply.values[index] for server, reply in replies.items()}
            values = list(said.values())
            most = max(values, key=values.count)
            if wrong := frozenset(server for server, value in said.items() if value != most):
                differing[key] = wrong
    return Comparison(frozenset(cluster.names) - frozenset(absent), absent, differing, undecided)


def _at_one_slot(
    cluster: Asked, log: Log, absent: dict[int, str], part: tuple[bytes, ...], pause: Callable[[float], object]
) -> dict[int, Values] | None:
    """Return the servers' values of these keys, all as of the same slot; None if never so. Raises
    TooMuchAtOnceError."""
    for _ in range(TRIES):
        log.catch_up()
        log.take_news()
        request = ReadKeys(log.known.slot, log.known.digest, part)
        found = cluster.ask({server: request for server in cluster.names if server not in absent}, stall_s=MAP_S)
        replies = {}
        for server, outcome in found.items():
            if isinstance(outcome, Answer) and isinstance(outcome.reply, Values):
                replies[server] = outcome.reply
            elif isinstance(outcome, Failure) and key_portions.may_lack_room(outcome.status, part):
                raise TooMuchAtOnceError(outcome.text)
            elif isinstance(outcome, Failure):
                absent[server] = outcome.text
        if replies and len(replies) + len(absent) >= len(cluster.names) and len(_slots(replies)) == 1:
            return replies
        pause(PAUSE_S)
    return None


def _slots(replies: Mapping[int, Values]) -> set[int]:
    return {reply.applied for reply in replies.values()}
