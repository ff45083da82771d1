"""Which locks only one mount may have at a time."""

from __future__ import annotations

import pytest

from dfsfuse.vfs.locks.one_mount import GUARDS, guarded


@pytest.mark.parametrize(
    ("name", "byte", "what"),
    [
        (b"places.sqlite-shm", 128, "SQLite"),
        (b"lock.mdb", 0, "LMDB"),
        (b"cache-lock", 0, "LMDB"),
    ],
)
def test_the_table_knows_what_programs_lock(name: bytes, byte: int, what: str) -> None:
    found = guarded([(1, b"another name"), (2, name)], byte, byte)
    assert found is not None
    assert found.name == name
    assert found.beside is None
    assert what in found.refusal


@pytest.mark.parametrize(
    ("name", "byte", "protected"),
    [
        (b"places.sqlite-shm", 128, {b"places.sqlite", b"places.sqlite-wal"}),
        (b"lock.mdb", 0, {b"data.mdb"}),
        (b"cache-lock", 0, {b"cache"}),
    ],
)
def test_it_protects_what_is_written_under_it(name: bytes, byte: int, protected: set[bytes]) -> None:
    found = guarded([(7, name)], byte, byte)
    assert found is not None
    assert found.protects == {(7, each) for each in protected}


def test_sqlite_is_known_by_its_lock_on_the_database() -> None:
    found = guarded([(7, b"places.sqlite")], 0x40000002, 0x40000002 + 509)
    assert found is not None
    assert (found.name, found.beside) == (b"places.sqlite", (7, b"places.sqlite-shm"))


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        (b"places.sqlite", 128, 128),
        (b"places.sqlite-shm", 120, 127),
        (b"places.sqlite-shm", 0, 2**63 - 1),
        (b"places.sqlite-shm", 128, 129),
        (b"my-lock.mdb", 0, 0),
        (b"apt-lock", 0, 2**63 - 1),
        (b"lock.mdb", 7482, 7482),
    ],
)
def test_all_else_is_locked_as_always(name: bytes, start: int, end: int) -> None:
    assert guarded([(1, name)], start, end) is None
    assert guarded([], start, end) is None


def test_each_guard_says_which_version_was_tried() -> None:
    assert all(any(sign.isdigit() for sign in guard.source) for guard in GUARDS)
