"""What the checker accepts and rejects: `torture.model` and `torture.contents`."""

from __future__ import annotations

import pytest

from . import contents
from .model import FILE, FOLDER, Entry, Found, Journal, Mixture, Operation, State, apply

CREATE = Operation("create", "f", number=1, version=1, size=10_000)
OVERWRITE = Operation("write", "f", number=1, version=2, offset=5_000, size=10_000)


def found(state: State) -> Found:
    """The state as a mount shows it, with its own inode numbers."""
    names = {
        path: Entry(entry.kind, entry.number + 100 if entry.kind == FILE else 0, entry.target)
        for path, entry in state.names.items()
    }
    return Found(names, {number + 100: data for number, data in state.contents.items()})


def journal(*operations: Operation, durable: bool = True) -> Journal:
    journal = Journal()
    for operation in operations:
        journal.acknowledged(operation, durable=durable)
    return journal


# ------------------------------------------------------------------ contents


def test_every_range_is_a_part_of_the_whole() -> None:
    whole = contents.make(3, 4, 0, 1000)
    assert len(whole) == 1000
    for offset, size in ((0, 1000), (1, 31), (32, 32), (999, 1), (500, 0)):
        assert contents.make(3, 4, offset, size) == whole[offset : offset + size]


def test_a_wrong_byte_says_whose_it_is() -> None:
    assert contents.explain(contents.make(3, 4, 77, 100), 77) == "version 4 of file 3"
    assert contents.explain(contents.make(3, 4, 64, 100), 640) == "version 4 of file 3 from place 64"
    assert contents.explain(bytes(100), 0) == "zeros"
    assert "nobody" in contents.explain(b"\xff" * 100, 0)


# ------------------------------------------------------------------ what operations do


def test_a_folder_is_renamed_with_all_that_is_in_it() -> None:
    state = State()
    for operation in (
        Operation("mkdir", "a"),
        Operation("mkdir", "ab"),
        Operation("create", "a/f", number=1),
        Operation("link", "a/f", "ab/g"),
        Operation("rename", "a", "b"),
    ):
        state = apply(state, operation)
    assert state.names == {
        "b": Entry(FOLDER),
        "ab": Entry(FOLDER),
        "b/f": Entry(FILE, 1),
        "ab/g": Entry(FILE, 1),
    }
    for path in ("b/f", "ab/g"):
        assert state.contents
        state = apply(state, Operation("unlink", path))
    assert not state.contents


def test_a_write_behind_the_end_leaves_a_hole_of_zeros() -> None:
    state = apply(apply(State(), CREATE), Operation("write", "f", number=1, version=2, offset=12_000, size=5))
    assert state.contents[1] == CREATE.data() + bytes(2_000) + contents.make(1, 2, 12_000, 5)


# ------------------------------------------------------------------ what may be found


def test_what_is_acknowledged_must_be_there() -> None:
    log = journal(CREATE)
    assert log.adopt(found(log.current), crashed=True) == []
    assert log.adopt(found(State()), crashed=True) == ["f is missing"]


def test_a_crash_leaves_a_prefix_and_nothing_else() -> None:
    one, two = Operation("mkdir", "one"), Operation("mkdir", "two")
    first, both, second = State({"one": Entry(FOLDER)}), apply(apply(State(), one), two), State({"two": Entry(FOLDER)})
    for state in (State(), first, both):
        assert journal(one, two, durable=False).adopt(found(state), crashed=True) == []
    assert journal(one, two, durable=False).adopt(found(second), crashed=True)
    assert journal(one, two, durable=False).adopt(found(first), crashed=False) == ["two is missing"]
    log = journal(one, durable=False)
    log.acknowledged(two, durable=True)
    assert log.adopt(found(first), crashed=True) == ["two is missing"]


def test_a_failed_rename_happened_or_did_not() -> None:
    rename = Operation("rename", "f", "g")
    for state in (apply(State(), CREATE), apply(apply(State(), CREATE), rename)):
        log = journal(CREATE)
        log.failed(rename, "EIO")
        assert log.adopt(found(state), crashed=False) == []
        assert not log.is_in_doubt
        assert log.current == state
    for names in ({}, {"f": Entry(FILE, 1), "g": Entry(FILE, 1)}):
        log = journal(CREATE)
        log.failed(rename, "EIO")
        assert log.adopt(found(State(names, {1: CREATE.data()} if names else {})), crashed=False)


def test_a_failed_write_leaves_chunks_of_old_and_new() -> None:
    old, new = CREATE.data(), apply(apply(State(), CREATE), OVERWRITE).contents[1]
    mixed = new[:8192] + old[8192:]
    for data in (old, new, mixed, new[:12_288]):
        log = journal(CREATE)
        log.failed(OVERWRITE, "EIO")
        assert log.adopt(found(State({"f": Entry(FILE, 1)}, {1: data})), crashed=False) == []
        assert log.current.contents == {1: data}
    torn = new[:7_000] + old[7_000:]
    for data in (torn, old[:9_999], new + b"x", bytes(10_000)):
        log = journal(CREATE)
        log.failed(OVERWRITE, "EIO")
        assert log.adopt(found(State({"f": Entry(FILE, 1)}, {1: data})), crashed=False)


def test_a_failed_create_leaves_nothing_or_a_beginning() -> None:
    data = CREATE.data()
    for state in (State(), *(State({"f": Entry(FILE, 1)}, {1: data[:size]}) for size in (0, 4_096, 10_000))):
        log = journal()
        log.failed(CREATE, "EIO")
        assert log.adopt(found(state), crashed=False) == []
    log = journal()
    log.failed(CREATE, "EIO")
    assert log.adopt(found(State({"f": Entry(FILE, 1)}, {1: bytes(10_000)})), crashed=False)


@pytest.mark.parametrize("at", [0, 4_999, 9_999])
def test_one_wrong_byte_is_seen(at: int) -> None:
    data = bytearray(CREATE.data())
    data[at] ^= 1
    assert Mixture((CREATE.data(),)).problem(bytes(data))


def test_two_names_of_one_file_must_be_one_inode() -> None:
    log = journal(CREATE, Operation("link", "f", "g"))
    names = {"f": Entry(FILE, 101), "g": Entry(FILE, 102)}
    parted = Found(names, {101: CREATE.data(), 102: CREATE.data()})
    assert log.adopt(parted, crashed=False) == ["g is another inode than the other names of file 1"]
    two = journal(CREATE, Operation("create", "g", number=2, version=1, size=10))
    joined = Found({"f": Entry(FILE, 101), "g": Entry(FILE, 101)}, {101: CREATE.data()})
    assert "two files have one inode" in two.adopt(joined, crashed=False)
