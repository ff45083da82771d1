"""Uploads the pieces of one segment to two servers each. `UploadPlan` decides, purely; `upload` does it.

Done when every piece has two acknowledgements, each of which means that the server has the piece durably. The homes
recorded are servers that acknowledged, never servers that were merely meant to.

The ring's servers are tried first. A server that fails is out for this segment, and its pieces go to usable ones that
do not have them yet; one that lags is not waited for while others are prompt (two successes elsewhere come first, so
that four slow disks do not chase each other). With fewer than three answering servers the upload is refused, since the
batch that would refer to the pieces needs three anyway. Pieces of a segment that ends up unreferenced are orphans.

The data is not copied: calls refer to views of the caller's buffer, all of which are released when `upload` ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from dfs_server.protocol.limits import COPIES
from dfs_server.protocol.messages import Done, PutPiece
from dfs_server.protocol.pieces import PIECE_NUMBERS, Buffer, block_digests, piece_digest
from dfs_server.protocol.status import Status
from dfsfuse.data.extents import Digests
from dfsfuse.data.placement import Homes, place
from dfsfuse.data.race import Attempt, Race
from dfsfuse.data.striping import split
from dfsfuse.data.transport import ClusterLike, run
from dfsfuse.errors import DfsError, NoSpaceError, ReadOnlyError, too_few_to_write
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.health.pace import Pace
from dfsfuse.net.stalls import PIECE_S

SERVERS_TO_WRITE: Final = 3
"""A batch needs three servers, so data for fewer is not worth sending."""

HEDGE_S: Final = 0.4
"""How long a server may take for a piece before another one is sent it too, unless that usually takes longer."""
DEADLINE_S: Final = 60.0
"""However slowly bytes trickle, an upload of at most 4 MiB ends within this time."""


class Uploaded(NamedTuple):
    """Where the pieces of a segment are, durably, and their level-two digests."""

    homes: Homes
    digests: Digests


def require_writable(usable: Collection[int]) -> None:
    """Raise `ReadOnlyError` if these are too few servers to write."""
    if len(usable) < SERVERS_TO_WRITE:
        raise ReadOnlyError(too_few_to_write(len(usable)))


def servers_to_write_to(cluster: ClusterLike) -> frozenset[int]:
    """Return the usable servers that have room. If too few are usable, those believed down are checked once more, since
    one may have come back a moment ago.

    Raises `ReadOnlyError` if they still are, `NoSpaceError` if too few have room.
    """
    usable = cluster.usable()
    if len(usable) < SERVERS_TO_WRITE:
        usable = cluster.recheck()
    require_writable(usable)
    full = cluster.full() & usable
    if len(usable - full) < SERVERS_TO_WRITE:
        raise NoSpaceError(
            f"{_names(cluster, full)} full, and {len(usable - full)} servers are left for data where "
            f"{SERVERS_TO_WRITE} are needed: delete files, or make room on the servers' disks"
        )
    return usable - full


def _names(cluster: ClusterLike, servers: frozenset[int]) -> str:
    names = [cluster.names[server] for server in sorted(servers)]
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


class UploadPlan:
    """Decides which piece goes where next, and when to give up. Pure."""

    def __init__(
        self,
        rotation: int,
        usable: frozenset[int],
        spared: frozenset[int] = frozenset(),
        patience_s: float = HEDGE_S,
    ) -> None:
        """`spared` are usable servers that should preferably not be burdened. Raises `ReadOnlyError`."""
        require_writable(usable)
        self._usable = usable
        self._silent: set[int] = set()
        self._said: list[str] = []
        self._full = False
        prompt = usable - spared
        preferred = place(rotation, prompt if len(prompt) >= SERVERS_TO_WRITE else usable)
        order = {
            number: _with_replacements(homes, usable, spared)
            for number, homes in zip(PIECE_NUMBERS, preferred, strict=True)
        }
        self.race = Race(order, need=COPIES, patience_s=patience_s, others_first=COPIES)

    def acknowledged(self, attempt: Attempt, now: float) -> float:
        """Record that the server has the piece, durably. Returns how long that took, in seconds."""
        return self.race.won(attempt, now)

    def failed(self, attempt: Attempt, status: Status | None, text: str) -> None:
        """Record that the server does not have the piece. `status` None: it did not answer."""
        self.race.lost(attempt, out=True)
        self._said.append(text)
        self._full = self._full or status == Status.NO_SPACE
        if status is None:
            self._silent.add(attempt.server)

    def error(self) -> DfsError | None:
        """Return why there is no hope left; None while there is."""
        if not self._said:
            return None
        said = "; ".join(dict.fromkeys(self._said))
        answering = len(self._usable - self._silent)
        if answering < SERVERS_TO_WRITE and not self.race.done():
            return ReadOnlyError(f"only {answering} of 4 servers still answer, too few to write: {said}")
        number = self.race.hopeless()
        if number is None:
            return None
        if self._full:
            return NoSpaceError(f"no two servers have room for P{number}: {said}")
        return ReadOnlyError(f"no two servers can store P{number}: {said}")

    def homes(self) -> Homes:
        """Return the two servers that have each piece. Only when the race is done."""
        one, two, three, four = (self.race.winners(number) for number in PIECE_NUMBERS)
        return one, two, three, four


def _with_replacements(homes: tuple[int, ...], usable: frozenset[int], spared: frozenset[int]) -> tuple[int, ...]:
    """Return the homes, then all others in ring order from the first home on (so that the two pieces of a failing
    server go to different ones), with the spared ones at the end."""
    others = sorted(usable - set(homes), key=lambda server: (server in spared, (server - homes[0]) % 4))
    return (*homes, *others)


class _Upload:
    """One segment's upload, for `transport.run`."""

    def __init__(self, segment: bytes, data: Buffer, plan: UploadPlan, names: Mapping[int, str], pace: Pace) -> None:
        self.race = plan.race
        self._pace = pace
        self._segment = segment
        self._pieces = split(data)
        self._plan = plan
        self._names = names
        self._digests: dict[int, bytes] = {}  # level one, computed when the piece is first sent

    def call(self, attempt: Attempt) -> Call:
        piece = self._pieces[attempt.number - 1]
        if attempt.number not in self._digests:
            self._digests[attempt.number] = block_digests(piece)
        request = PutPiece(self._segment, attempt.number, self._digests[attempt.number])
        return Call(server=attempt.server, request=request, payload=(piece,), stall_s=PIECE_S, is_patient=True)

    def finished(self, attempt: Attempt, result: Answer | Failure, now: float) -> None:
        if isinstance(result, Failure):
            self._plan.failed(attempt, result.status, result.text)
        elif isinstance(result.reply, Done):
            took_s = self._plan.acknowledged(attempt, now)
            self._pace.note(len(self._pieces[attempt.number - 1]), took_s, attempt.server)
        else:
            name = self._names[attempt.server]
            text = f"{name} answered PutPiece with {type(result.reply).__name__}"
            self._plan.failed(attempt, Status.BAD_REQUEST, text)

    def expired(self) -> None:
        for attempt in self.race.pending():
            text = f"{self._names[attempt.server]} was not done after {DEADLINE_S:.0f} s"
            self._plan.failed(attempt, None, text)

    def check(self) -> None:
        error = self._plan.error()
        if error is not None:
            raise error

    def result(self) -> Uploaded:
        one, two, three, four = (piece_digest(self._digests[number]) for number in PIECE_NUMBERS)
        return Uploaded(self._plan.homes(), (one, two, three, four))


def upload(
    segment: bytes,
    data: Buffer,
    rotation: int,
    cluster: ClusterLike,
    pace: Pace,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Uploaded:
    """Store the pieces of segment `segment` on two servers each; durable when it returns.

    Raises `ReadOnlyError` if fewer than three servers answer, `NoSpaceError` if too few have room.
    """
    usable = servers_to_write_to(cluster)
    try:
        return _upload_once(segment, data, rotation, usable, cluster, pace, clock)
    except ReadOnlyError as refused:
        again = _servers_now(cluster, refused)
        if again <= usable:
            raise
    # One came back meanwhile.
    return _upload_once(segment, data, rotation, again, cluster, pace, clock)


def _servers_now(cluster: ClusterLike, refused: ReadOnlyError) -> frozenset[int]:
    """Return the servers to write to after an upload was refused. Raises `NoSpaceError` if the problem is now room, and
    the refusal, which says what each server said, if they are too few."""
    cluster.recheck()
    try:
        return servers_to_write_to(cluster)
    except ReadOnlyError:
        raise refused from None


def _upload_once(
    segment: bytes,
    data: Buffer,
    rotation: int,
    usable: frozenset[int],
    cluster: ClusterLike,
    pace: Pace,
    clock: Callable[[], float],
) -> Uploaded:
    largest = -(-memoryview(data).nbytes // len(PIECE_NUMBERS))
    plan = UploadPlan(rotation, usable, cluster.health.data.now(), pace.patience_s(largest))
    job = _Upload(segment, data, plan, cluster.names, pace)
    run(job, cluster, deadline_s=DEADLINE_S, clock=clock)
    return job.result()
