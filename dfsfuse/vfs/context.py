"""What the parts of the Vfs share: the map, the segments, the clock, the options; and what they need of the data layer.

Locks of the whole package, in the order in which they are taken (never in reverse):

    OpenFile.commit_lock    one flush or truncate of a file at a time; the only lock held while waiting for servers
    (the store's own)       while `work` runs; `work` may take the locks below
    OpenFiles lock          the table of open files
    OpenFile.lock           a file's unsaved data
    Backlog's lock          which files have unsaved data, and since when
    Budget's condition      counts of bytes
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.pieces import Buffer
from dfsfuse.data.extents import Segment
from dfsfuse.data.upload import SERVERS_TO_WRITE
from dfsfuse.errors import ReadOnlyError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.ops.inode_numbers import InodeNumbers

FILE_MAX_BYTES: Final = 2**63 - 1
"""The largest offset that Linux supports."""

PATIENCE_S: Final = 120.0
"""No upload takes longer: the data layer's own deadlines are seconds. A guard against our own bugs."""

log = logging.getLogger("dfsfuse.vfs")


class Written(Protocol):
    """A new segment: durable on its homes, or (if small) as soon as a batch carries `inline`."""

    @property
    def segment(self) -> Segment: ...
    @property
    def inline(self) -> tuple[InlinePiece, ...]: ...


class Segments(Protocol):
    """The data layer as the Vfs uses it: see `dfsfuse.data.segments.SegmentStore`."""

    def write(self, data: Buffer, rotation: int) -> Written: ...
    def joined(self, segments: Sequence[Segment], rotation: int) -> Written | None: ...
    def read(self, segment: Segment, offset: int, length: int) -> bytes: ...
    def prefetch(self, segment: Segment) -> None: ...
    def fetch_small(self, segments: Sequence[Segment]) -> None: ...
    def missing(self, segments: Sequence[Segment]) -> list[frozenset[int]]: ...
    def copies(self, segments: Sequence[Segment]) -> list[dict[int, frozenset[int]]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Context:
    """Created once by the Vfs and never changed."""

    store: MapStore
    segments: Segments
    numbers: InodeNumbers
    servers: Mapping[int, str]
    usable: Callable[[], frozenset[int]]
    clock: Callable[[], int]
    """Returns nanoseconds since 1970, for the times of files."""
    monotonic: Callable[[], float]
    max_age_s: float
    """The maximum age of attributes, names and the data of open files."""
    wait_for_close: bool
    """Whether close() waits until everything is durable (durability=close), rather than only fsync()."""
    client: bytes
    """An id of this mount that no other mount has."""
    grace_s: float
    """How long a file without a name is kept, so that other mounts that have it open can say so (removal.py)."""
    background: Executor
    """For commits in the background, and deletions. One thread."""
    uploads: Executor
    """For segments being uploaded. A task here never waits for another."""

    def seems_writable(self) -> bool:
        """Return whether as many servers are believed to answer as writing needs. Costs nothing: `store.writable`
        checks the missing ones again, which takes time."""
        return len(self.usable()) >= SERVERS_TO_WRITE

    def check_writable(self) -> None:
        """Raise ReadOnlyError if too few servers are available for writing."""
        if not self.store.writable():
            raise ReadOnlyError("fewer than three servers answer: nothing can be written until one of them is back")
