"""Upload and download of segments: all that the layers above know about file data.

`write` makes a segment of some bytes, `read` returns bytes of one. Small segments are not sent from here: their pieces
are handed to the caller, who carries them in the batch that refers to them, so that they become durable with it. The
pieces of larger ones are durable on two servers each when `write` returns.

Knows nothing of files and regions: what refers to a segment, and when it is dropped, is decided by the metadata.

Threads: any number of callers. Prefetches run on two threads of its own, which start with the first prefetch and
end with `close`. Memory: the cache's bytes, plus what is being read and written at the moment.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Final, NamedTuple

from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.pieces import (
    BLOCK_BYTES,
    PIECE_NUMBERS,
    Buffer,
    block_count,
    block_digests,
    piece_digest,
)
from dfsfuse.data.block_cache import DEFAULT_CACHE_BYTES, BlockCache, Run
from dfsfuse.data.download import DEADLINE_S, HEDGE_S, OnBadPiece, Wanted, download
from dfsfuse.data.extents import Segment
from dfsfuse.data.holders import LAST_ONE_S, holders
from dfsfuse.data.placement import place
from dfsfuse.data.small_pieces import FIRST_BYTES, fetch_small, next_size, together
from dfsfuse.data.striping import (
    SEGMENT_MAX_BYTES,
    Part,
    blocks_touched,
    hull,
    locate,
    piece_lengths,
    split,
)
from dfsfuse.data.transport import ClusterLike
from dfsfuse.data.upload import HEDGE_S as UPLOAD_HEDGE_S
from dfsfuse.data.upload import SERVERS_TO_WRITE, servers_to_write_to, upload
from dfsfuse.errors import DfsError

INLINE_SEGMENT_MAX_BYTES: Final = 128 * 1024
PREFETCH_THREADS: Final = 2
PREFETCHES_AT_ONCE: Final = 8
"""In progress or waiting for a thread; further ones are not worthwhile and are dropped."""


class Written(NamedTuple):
    """A new segment, and the pieces to carry in the batch that refers to it (none if they are already on servers)."""

    segment: Segment
    inline: tuple[InlinePiece, ...]


def _random_id() -> bytes:
    return secrets.token_bytes(16)


class SegmentStore:
    """See the module."""

    def __init__(
        self,
        cluster: ClusterLike,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        ids: Callable[[], bytes] = _random_id,
        clock: Callable[[], float] = time.monotonic,
        on_bad_piece: OnBadPiece = lambda *_: None,
    ) -> None:
        """`on_bad_piece` is called for each copy that a reader found bad or missing, on the reader's thread. It must
        not wait."""
        self._cluster = cluster
        self._cache = BlockCache(cache_bytes)
        self._ids = ids
        self._clock = clock
        self._pace = cluster.health.pace("pieces", HEDGE_S)
        self._small_pace = cluster.health.pace("small pieces", HEDGE_S)
        self._small_bytes = FIRST_BYTES  # a hint: if two threads set it, the later one wins
        self._upload_pace = cluster.health.pace("uploads", UPLOAD_HEDGE_S)
        self._asking = cluster.health.pace("holders", LAST_ONE_S)
        self._on_bad_piece = on_bad_piece
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None  # guarded by _lock
        self._prefetches: dict[bytes, Future[None]] = {}  # by segment id; guarded by _lock
        self._closed = False  # guarded by _lock

    # -------------------------------------------------------------- upload

    def write(self, data: Buffer, rotation: int) -> Written:
        """Make a segment of 1 byte to 4 MiB. `data` must not change until this returns, and is not used afterwards.

        Raises `ReadOnlyError` if fewer than three servers answer, `NoSpaceError` if too few have room.
        """
        length = memoryview(data).nbytes
        if not 0 < length <= SEGMENT_MAX_BYTES:
            raise ValueError(f"a segment has 1 to {SEGMENT_MAX_BYTES} bytes, not {length}")
        if length <= INLINE_SEGMENT_MAX_BYTES:
            return self._inline(data, rotation, servers_to_write_to(self._cluster))
        segment = self._ids()
        homes, digests = upload(segment, data, rotation, self._cluster, self._upload_pace, clock=self._clock)
        return Written(Segment(segment, length, homes, digests), ())

    def joined(self, segments: Sequence[Segment], rotation: int) -> Written | None:
        """Make one small segment of the data of these, one after the other. Never waits: None unless all of it is in
        the cache, and enough servers are known to take it."""
        usable = self._cluster.usable() - self._cluster.full()
        if len(usable) < SERVERS_TO_WRITE:
            return None
        parts = []
        for segment in segments:
            for number, length in zip(PIECE_NUMBERS, piece_lengths(segment.length), strict=True):
                if length:
                    part = self._cache.get(segment.id, number, 0)
                    if part is None:
                        return None
                    parts.append(part)
        return self._inline(b"".join(parts), rotation, usable)

    def _inline(self, data: Buffer, rotation: int, usable: frozenset[int]) -> Written:
        segment, names = self._ids(), self._cluster.names
        pieces = split(data)
        one, two, three, four = [piece_digest(block_digests(piece)) for piece in pieces]
        homes = place(rotation, usable)
        inline = tuple(
            [
                InlinePiece(segment, number, tuple([names[server] for server in home]), bytes(piece))
                for number, home, piece in zip(PIECE_NUMBERS, homes, pieces, strict=True)
            ]
        )
        # What was just written is often read next, or joined. Caching it takes no extra memory here.
        self._cache.put_new(segment, [memoryview(piece.data) for piece in inline])
        return Written(Segment(segment, memoryview(data).nbytes, homes, (one, two, three, four)), inline)

    # -------------------------------------------------------------- download

    def read(self, segment: Segment, offset: int, length: int) -> bytes:
        """Return the bytes of a segment from `offset` on: `length`, or fewer where the segment ends. Verified.

        Raises `IncompleteError` if there is no reachable good copy of some of them.
        """
        parts = locate(segment.length, offset, length)
        if self._prefetches:
            self._wait_for_prefetch(segment.id)
        if len(parts) == 1:
            number, at, size = parts[0]
            block, start = divmod(at, BLOCK_BYTES)
            if start + size <= BLOCK_BYTES:
                return bytes(self._block(segment, number, block)[start : start + size])
        blocks = self._blocks(segment, {part.number: blocks_touched(part) for part in parts})
        return b"".join(view for part in parts for view in _cut(part, blocks))

    def _block(self, segment: Segment, number: int, block: int) -> memoryview:
        """Return one block of one of the segment's pieces: from the cache, else fetched and cached."""
        found = self._cache.get(segment.id, number, block)
        if found is None:
            (run,) = self._download(segment, {number: range(block, block + 1)})
            found = run.data
        return found

    def _blocks(self, segment: Segment, touched: Mapping[int, range]) -> dict[tuple[int, int], memoryview]:
        """Return blocks of the segment's pieces, by (piece number, block): from the cache, else fetched and cached."""
        found = {}
        wanted = {}
        for number, blocks in touched.items():
            missing = []
            for block in blocks:
                view = self._cache.get(segment.id, number, block)
                if view is None:
                    missing.append(block)
                else:
                    found[number, block] = view
            if missing:
                wanted[number] = hull(missing)
        if wanted:
            for run in self._download(segment, wanted):
                found.update(((run.number, block), run.block(block)) for block in run.blocks())
        return found

    def _download(self, segment: Segment, wanted: Wanted) -> list[Run]:
        runs = download(segment, wanted, self._cluster, self._pace, on_bad=self._on_bad_piece, clock=self._clock)
        for run in runs:
            self._cache.put(run)
        return runs

    # -------------------------------------------------------------- prefetching

    def prefetch(self, segment: Segment) -> None:
        """Fetch all of a segment into the cache, in the background. Never fails: `read` will report what is wrong."""
        with self._lock:
            if self._closed or segment.id in self._prefetches or len(self._prefetches) >= PREFETCHES_AT_ONCE:
                return
            if self._threads is None:
                self._threads = ThreadPoolExecutor(PREFETCH_THREADS, thread_name_prefix="prefetch")
            self._prefetches[segment.id] = self._threads.submit(self._prefetch, segment)

    def fetch_small(self, segments: Sequence[Segment]) -> None:
        """Fetch small segments of several files into the cache, as many as are worth one go, with one request to each
        server. Never fails, and takes no longer than a read: `read` will report what is wrong."""
        lacking = [one for one in segments if one.length <= INLINE_SEGMENT_MAX_BYTES and not self._has(one)]
        size, begun = self._small_bytes, self._clock()
        chosen = together(lacking, size)
        if len(chosen) > 1:
            for run in fetch_small(chosen, self._cluster, self._small_pace, clock=self._clock):
                self._cache.put(run)
            self._small_bytes = next_size(size, self._clock() - begun)

    def _has(self, segment: Segment) -> bool:
        """Return whether all of a small segment is in the cache."""
        lengths = piece_lengths(segment.length)
        return all(
            self._cache.get(segment.id, number, 0) is not None
            for number, length in zip(PIECE_NUMBERS, lengths, strict=True)
            if length
        )

    def _prefetch(self, segment: Segment) -> None:
        lengths = piece_lengths(segment.length)
        whole = {
            number: range(block_count(length)) for number, length in zip(PIECE_NUMBERS, lengths, strict=True) if length
        }
        try:
            self._blocks(segment, whole)
        except DfsError:
            pass  # a read of the segment gets the error
        finally:
            with self._lock:
                self._prefetches.pop(segment.id, None)

    def _wait_for_prefetch(self, segment: bytes) -> None:
        """If the segment is being fetched, wait for that rather than fetch it twice."""
        with self._lock:
            under_way = self._prefetches.get(segment)
        if under_way is None:
            return
        if under_way.cancel():  # no thread was free for it yet: the reader is faster
            with self._lock:
                self._prefetches.pop(segment, None)
            return
        wait([under_way], timeout=2 * DEADLINE_S)

    # -------------------------------------------------------------- which server has what

    def copies(self, segments: Sequence[Segment]) -> list[dict[int, frozenset[int]]]:
        """Return for each segment: piece number -> ids of the servers that answer and have it now. No data is read."""
        pieces = [(segment.id, number) for segment in segments for number in PIECE_NUMBERS]
        found = iter(self._holders(pieces, one_is_enough=False))
        return [{number: frozenset(next(found)) for number in PIECE_NUMBERS} for _ in segments]

    def missing(self, segments: Sequence[Segment]) -> list[frozenset[int]]:
        """Return for each segment the numbers of the pieces that no answering server has. Empty pieces need no server.

        Does not wait for a server whose answer makes no difference, because the others have a copy of everything.
        """
        pieces = [(segment.id, number) for segment in segments for number in PIECE_NUMBERS if number <= segment.length]
        found = self._holders(pieces, one_is_enough=True)
        nowhere = {piece for piece, servers in zip(pieces, found, strict=True) if not servers}
        return [
            frozenset(number for number in PIECE_NUMBERS if (segment.id, number) in nowhere) for segment in segments
        ]

    def _holders(self, pieces: Sequence[tuple[bytes, int]], *, one_is_enough: bool) -> list[set[int]]:
        return holders(pieces, self._cluster, self._asking, one_is_enough=one_is_enough, clock=self._clock)

    def close(self) -> None:
        """End the prefetches. Waits for those in progress."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        self._cache.clear()


def _cut(part: Part, blocks: Mapping[tuple[int, int], memoryview]) -> list[memoryview]:
    """Return the part's bytes, as views of the blocks that it touches."""
    touched = blocks_touched(part)
    views = [blocks[part.number, block] for block in touched]
    start = part.offset - touched.start * BLOCK_BYTES
    views[0] = views[0][start:]
    surplus = sum(map(len, views)) - part.size
    views[-1] = views[-1][: len(views[-1]) - surplus]
    return views
