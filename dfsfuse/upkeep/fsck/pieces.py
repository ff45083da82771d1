"""Check that the pieces of all segments are on their homes, by what servers say they have, less the copies that were
found to be bad; nothing is read (`verify` reads).

What seems to be missing is asked for again after rereading the records, since files are written to and healed
meanwhile. A server that does not answer is left out, and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dfs_server.protocol.messages import Have, HavePieces
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.common.portions import by_count
from dfsfuse.data import extents
from dfsfuse.data.extents import Segment
from dfsfuse.data.transport import ClusterLike
from dfsfuse.namespace.ops.bad_copies import Place
from dfsfuse.namespace.records import keys
from dfsfuse.net.exchange import Answer, Failure
from dfsfuse.upkeep import whole_pieces
from dfsfuse.upkeep.asking import ask
from dfsfuse.upkeep.fsck.data import Placed
from dfsfuse.upkeep.heal import survey as heal_survey
from dfsfuse.upkeep.map_reader import Pages

BATCH_SEGMENTS: Final = heal_survey.BATCH_SEGMENTS


@dataclass(frozen=True)
class Lack:
    """A home that lacks a piece it should have. `is_last`: no answering server has it."""

    placed: Placed
    number: int
    server: int
    is_last: bool


@dataclass
class Pieces:
    """The outcome."""

    segments: int = 0
    lacks: list[Lack] = field(default_factory=list)
    away: int = 0
    """Segments whose record names homes other than the ring's: written while a server was down, and not healed yet."""
    unreachable: dict[int, str] = field(default_factory=dict)
    """Servers that did not answer, and why."""


def check(
    cluster: ClusterLike,
    pages: Pages,
    placed: Sequence[Placed],
    on_progress: Callable[[int], None] = lambda _: None,
    wait: Callable[[float], bool] = lambda _: False,
) -> Pieces:
    """Ask the servers for the pieces of all these segments. Raises `StoppedError`, UnavailableError,
    AuthenticationError."""
    found = Pieces(segments=len(placed))
    pages.begin()
    bad = heal_survey.noted(pages)
    suspects: list[Placed] = []
    for batch in by_count(placed, BATCH_SEGMENTS):
        found.away += sum(one.ring is not None and not _same(one) for one in batch)
        lacks = _ask(cluster, batch, bad, found.unreachable, wait)
        suspects += list({lack.placed.segment.id: lack.placed for lack in lacks}.values())
        on_progress(len(batch))
    for batch in by_count(suspects, BATCH_SEGMENTS):
        newest = list(_still_there(pages, batch))
        found.lacks += _ask(cluster, newest, bad, found.unreachable, wait)
    return found


def _same(placed: Placed) -> bool:
    return placed.ring is not None and [set(home) for home in placed.segment.homes] == [set(h) for h in placed.ring]


def _ask(
    cluster: ClusterLike,
    batch: Sequence[Placed],
    bad: frozenset[Place],
    unreachable: dict[int, str],
    wait: Callable[[float], bool],
) -> list[Lack]:
    wanted = [(one, number) for one in batch for number in PIECE_NUMBERS if whole_pieces.length_of(one.segment, number)]
    if not wanted:
        return []
    request = HavePieces(tuple((one.segment.id, number) for one, number in wanted))
    holders: list[set[int]] = [set() for _ in wanted]
    servers = [server for server in cluster.names if server not in unreachable]
    for server, outcome in ask(cluster, dict.fromkeys(servers, request), wait).items():
        if isinstance(outcome, Answer) and isinstance(outcome.reply, Have):
            for (one, number), there, flag in zip(wanted, holders, outcome.reply.flags, strict=False):
                if flag and (one.segment.id, number, server) not in bad:
                    there.add(server)
        else:
            unreachable[server] = outcome.text if isinstance(outcome, Failure) else "does not say what it has"
    return [
        Lack(one, number, server, is_last=not there)
        for (one, number), there in zip(wanted, holders, strict=True)
        for server in one.segment.homes[number - 1]
        if server not in there and server not in unreachable
    ]


def _still_there(pages: Pages, suspects: Sequence[Placed]) -> Iterator[Placed]:
    """Yield those that are still referred to in the newest state, with the homes that they have there."""
    pages.begin()
    wanted = [keys.region(one.ino, one.index) for one in suspects]
    for one, value in zip(suspects, pages.values(wanted), strict=True):
        for segment in _segments(value):
            if segment.id == one.segment.id:
                yield Placed(one.ino, one.index, segment, one.ring)


def _segments(value: bytes | None) -> tuple[Segment, ...]:
    try:
        return () if value is None else extents.decode(value).segments
    except OSError:
        return ()
