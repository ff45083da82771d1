"""Check that the records of a namespace's map are sound. `examine` reports what is not, and how to repair it. Pure.

For a sound map it reports nothing. Its changes lose nothing; what it does not understand it leaves alone and reports.
The changes are valid for the map that was examined: `mend` applies them only while what they rest on is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dfsfuse.common.portions import by_bytes
from dfsfuse.namespace.map.transactions import MapStore, Transaction
from dfsfuse.upkeep.fsck import data as fsck_data
from dfsfuse.upkeep.fsck import records as fsck_records
from dfsfuse.upkeep.fsck.data import Placed
from dfsfuse.upkeep.fsck.names import Names
from dfsfuse.upkeep.fsck.records import Draft, Finding, Items

KEYS_AT_ONCE: Final = 500
"""At most this many changes go into one batch; most maps need fewer in all."""
BYTES_AT_ONCE: Final = 1_000_000
"""At most about this many bytes per batch: an inode with extended attributes may have 64 KiB."""


@dataclass(frozen=True)
class Examined:
    """What was found in one state of the map."""

    findings: list[Finding]
    draft: Draft
    segments: list[Placed]
    path: Callable[[int], bytes]
    """Returns a path of an inode."""
    files: int
    folders: int
    is_all_understood: bool
    """Whether everything could be read. Otherwise nothing may be called unreferenced."""


def examine(items: Items, now_ns: int) -> Examined:
    """Check a whole map, all of it as of one slot."""
    contents = fsck_records.read(items)
    draft = Draft(items)
    strange = [Finding("cannot be read", _where(key), f"{why}: left alone", key) for key, why in contents.strange]
    names = Names(contents, draft, now_ns)
    findings = strange + names.check()
    findings += fsck_data.check(contents, draft, names.path)
    return Examined(
        findings,
        draft,
        list(fsck_data.segments(contents)),
        names.path,
        files=sum(not inode.is_directory for inode in contents.inodes.values()),
        folders=sum(inode.is_directory for inode in contents.inodes.values()),
        is_all_understood=not contents.strange,
    )


def mend(store: MapStore, draft: Draft) -> bool:
    """Apply the changes. Returns False if what they rest on has changed: examine again. Raises DfsError."""
    guards = draft.expected(draft.guards - set(draft.changes))
    changes = sorted(draft.changes.items(), key=lambda change: change[0])
    for items in by_bytes(changes, BYTES_AT_ONCE, lambda change: len(change[0]) + len(change[1] or b""), KEYS_AT_ONCE):
        portion = dict(items)
        expected = {**guards, **draft.expected(portion)}

        def work(tx: Transaction, portion: dict[bytes, bytes | None] = portion, expected: Mapping[bytes, bytes | None] = expected) -> bool:  # fmt: skip # noqa: E501
            if tx.get_many(list(expected)) != list(expected.values()):
                return False
            for key, value in portion.items():
                if value is None:
                    tx.delete(key)
                else:
                    tx.put(key, value)
            return True

        if not store.transact(work):
            return False
    return True


def _where(key: bytes) -> bytes:
    return b"(key %s)" % key.hex().encode()
