"""A user's namespace without a socket: dropped pieces are deleted when they are due, and errors have the right
status."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dfs_server.namespace import Namespace
from dfs_server.namespaces import Namespaces
from dfs_server.pieces.file import CorruptPieceError
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.pieces.store import BadPieceError, DigestMismatchError
from dfs_server.pieces.tables import StoredPiece
from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.protocol.messages import Accept, Chosen, GetPiece, Promise, PutPiece
from dfs_server.protocol.pieces import block_digests
from dfs_server.protocol.status import Status
from dfs_server.store.database import FolderFormatError
from dfs_server.wire.failures import RequestFailedError, failures_told

BALLOT = Ballot(1, b"client01")
LARGE, SMALL, KEPT = (bytes([number]) * 16 for number in (1, 2, 3))


@pytest.fixture
def namespaces(tmp_path: Path) -> Iterator[Namespaces]:
    with closing(Namespaces(tmp_path, "DFS1", grace_s=0.0, reserve_bytes=0)) as namespaces:
        yield namespaces


def put(namespace: Namespace, segment: bytes, data: bytes = b"data") -> None:
    with namespace.put_piece(PutPiece(segment, 1, block_digests(data)), len(data)) as upload:
        upload.write(data)
        upload.commit()


def is_here(namespace: Namespace, segment: bytes) -> bool:
    try:
        found = namespace.get_piece(GetPiece(segment, 1))
    except RequestFailedError as error:
        assert error.status is Status.NOT_FOUND
        return False
    if isinstance(found, OpenPiece):
        found.close()
    return True


def commit(namespace: Namespace, slot: int, previous: bytes, batch: Batch) -> bytes:
    encoded = batches.encode(batch)
    namespace.answer(Promise(BALLOT))
    namespace.answer(Accept(BALLOT, slot, encoded))
    digest = batches.digest(encoded)
    namespace.answer(Chosen(slot, digest))
    return digest


def test_a_namespace_is_opened_once_per_user(namespaces: Namespaces, tmp_path: Path) -> None:
    alice = namespaces.of("alice")
    assert namespaces.of("alice") is alice
    assert namespaces.of("bob") is not alice
    assert namespaces.opened() == [alice, namespaces.of("bob")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice", "bob"]


def test_dropped_pieces_are_deleted_and_others_are_not(namespaces: Namespaces) -> None:
    namespace = namespaces.of("alice")
    put(namespace, LARGE)
    put(namespace, KEPT)
    small = InlinePiece(SMALL, 1, ("DFS1",), b"small")
    first = commit(namespace, 1, b"", Batch(batches.FORMAT, b"", b"c", 1, 0, pieces=(small,)))
    assert isinstance(namespace.get_piece(GetPiece(SMALL, 1)), StoredPiece)
    assert namespace.delete_dropped() == 0
    commit(namespace, 2, first, Batch(batches.FORMAT, first, b"c", 2, 0, drops=(LARGE, SMALL)))
    assert namespace.delete_dropped() == 2
    assert [is_here(namespace, segment) for segment in (LARGE, SMALL, KEPT)] == [False, False, True]
    assert namespace.delete_dropped() == 0


def test_dropped_pieces_are_kept_for_the_grace_period(tmp_path: Path) -> None:
    with closing(Namespaces(tmp_path, "DFS1", grace_s=3600.0, reserve_bytes=0)) as namespaces:
        namespace = namespaces.of("alice")
        put(namespace, LARGE)
        commit(namespace, 1, b"", Batch(batches.FORMAT, b"", b"c", 1, 0, drops=(LARGE,)))
        assert namespace.delete_dropped() == 0
        assert is_here(namespace, LARGE)


def test_deleting_stops_when_the_server_does(namespaces: Namespaces) -> None:
    namespace = namespaces.of("alice")
    commit(namespace, 1, b"", Batch(batches.FORMAT, b"", b"c", 1, 0, drops=(LARGE,)))
    assert namespace.delete_dropped(stop=lambda: True) == 0
    assert namespace.delete_dropped() == 1


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database trouble")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Status.NO_SPACE),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Status.NO_SPACE),
        (OSError(errno.EIO, "Input/output error"), Status.IO_ERROR),
        (OSError(errno.EROFS, "Read-only file system"), Status.IO_ERROR),
        (sqlite_error(sqlite3.SQLITE_FULL), Status.NO_SPACE),
        (sqlite_error(sqlite3.SQLITE_IOERR), Status.IO_ERROR),
        (sqlite3.DatabaseError("file is not a database"), Status.IO_ERROR),
        (FolderFormatError("another format"), Status.IO_ERROR),
        (BadPieceError("no piece"), Status.BAD_REQUEST),
        (OverflowError("too large for SQLite"), Status.BAD_REQUEST),
        (DigestMismatchError("not what was said"), Status.DIGEST_MISMATCH),
        (CorruptPieceError("short"), Status.DIGEST_MISMATCH),
    ],
)
def test_every_failure_has_its_status(error: Exception, status: Status) -> None:
    with pytest.raises(RequestFailedError) as caught, failures_told():
        raise error
    assert caught.value.status is status


def test_a_mistake_of_ours_is_told_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RequestFailedError) as caught, failures_told():
        raise KeyError("a bug")
    assert caught.value.status is Status.IO_ERROR
    assert "KeyError: 'a bug'" in caplog.text
