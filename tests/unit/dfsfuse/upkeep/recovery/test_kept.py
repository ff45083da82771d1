"""The folder of unsaved data appears whole or not at all, is checked, and holds as much as the disk has room for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from dfsfuse.data.extents import Segment
from dfsfuse.upkeep.recovery import kept
from dfsfuse.upkeep.recovery.manifest import KeptError, Manifest, Namespace, Server, segment_of
from dfsfuse.vfs.open.open_file import Shown
from dfsfuse.vfs.write.left_over import LeftOver

SERVERS = tuple(Server(f"DFS{number}", b"%d" % number * 16) for number in range(1, 5))
HERE = Namespace("alice", b"namespace", SERVERS)
SEGMENT = Segment(b"s" * 16, 100, ((1, 2), (2, 3), (3, 4), (4, 1)), (b"1" * 32, b"2" * 32, b"3" * 32, b"4" * 32))


def manifest() -> Manifest:
    return Manifest(HERE, b"/mnt/\xff", 12, 2_000_000_000, "fewer than three servers answer", ())


def left(ino: int, *parts: tuple[int, bytes], path: bytes | None = b"d/f") -> LeftOver:
    shown = tuple(Shown(start, len(data), memoryview(data)) for start, data in parts)
    return LeftOver(ino, path, 5, False, False, shown)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    up = LeftOver(9, None, 6, True, True, (Shown(0, 50, None, SEGMENT, 50),), b"\xff" * 32)
    where = tmp_path / "new" / "unsaved"
    made = kept.keep(where, "ID", manifest(), [left(7, (0, b"long" * 100), (4096, b"x")), up, left(8, (1, b"s"))])
    (found,), errors = kept.found_in(where)
    assert errors == []
    assert (found.id, found.manifest) == ("ID", made.manifest)
    assert found.manifest.mountpoint == b"/mnt/\xff"
    files = {file.inode: file for file in found.manifest.files}
    assert [(part.offset, found.read(part)) for part in files[7].parts] == [(0, b"long" * 100), (4096, b"x")]
    assert files[9].parts[0].segment_offset == 50 and segment_of(files[9].parts[0]) == SEGMENT
    assert (files[7].state, files[9].state) == (None, b"\xff" * 32)
    assert (files[9].is_appended, files[9].is_doubtful, files[9].path, files[7].path) == (True, True, None, b"d/f")
    assert (found.folder / "names.txt").read_text().splitlines() == [
        "/d/f: 1 bytes",
        "inode 9: 50 bytes",
        "/d/f: 401 bytes",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (where, found.folder)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found.folder.iterdir()} == {0o600}


@pytest.mark.parametrize("seed", range(0, 400, 7))
def test_a_byte_that_is_not_what_it_was_is_noticed(tmp_path: Path, seed: int) -> None:
    made = kept.keep(tmp_path, "ID", manifest(), [left(7, (0, b"abc" * 100))])
    for name in ("manifest", "data"):
        file = made.folder / name
        data = bytearray(file.read_bytes())
        data[seed % len(data)] ^= 1
        file.write_bytes(data)
        with pytest.raises(KeptError):
            again = kept.load(made.folder)
            again.read(again.manifest.files[0].parts[0])
        data[seed % len(data)] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not unsaved data kept by a mount"),
        (b"something else\n{}", "not unsaved data kept by a mount"),
        (b"dfsfuse unsaved 2 00\n{}", "has format 2, and this program knows format 1 only"),
        (b"dfsfuse unsaved 1 00\n{}", "is damaged"),
    ],
)
def test_another_format_is_refused_and_the_others_are_read(tmp_path: Path, text: bytes, said: str) -> None:
    kept.keep(tmp_path, "good", manifest(), [])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest").write_bytes(text)
    (tmp_path / "not ours").mkdir()
    found, errors = kept.found_in(tmp_path)
    assert [one.id for one in found] == ["good"]
    assert [said in str(error) for error in errors] == [True]
    assert kept.found_in(tmp_path / "nowhere") == ([], [])


def test_a_record_that_cannot_be_understood(tmp_path: Path) -> None:
    (tmp_path / "ID").mkdir()
    rest = b'{"files": 1}'
    (tmp_path / "ID/manifest").write_bytes(b"dfsfuse unsaved 1 " + blake3(rest).hexdigest().encode() + b"\n" + rest)
    with pytest.raises(KeptError, match="cannot be understood"):
        kept.load(tmp_path / "ID")


def test_a_full_disk_keeps_what_fits_the_smallest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 500
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if os.fstat(descriptor).st_size + len(data) > room:
            write(descriptor, bytes(data)[:10])  # writes a part, as a disk that becomes full does
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(kept.os, "write", limited)
    files = [left(1, (0, b"l" * 1000), path=b"large"), left(2, (0, b"m" * 300), (999, b"n" * 300)), left(3, (0, b"s"))]
    made = kept.keep(tmp_path, "ID", manifest(), files)
    assert [(file.inode, file.size, file.missing_bytes) for file in made.manifest.files] == [
        (3, 1, 0),
        (2, 300, 300),
        (1, 0, 1000),
    ]
    again = kept.load(made.folder)
    assert [again.read(part) for file in again.manifest.files for part in file.parts] == [b"s", b"m" * 300]
    assert "/large: 0 bytes (1000 more could not be kept)" in (made.folder / "names.txt").read_text()


def test_a_disk_that_the_data_fills_has_room_for_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest's room is reserved in advance, however long its paths are."""
    reserved: list[int] = []
    monkeypatch.setattr(kept.os, "posix_fallocate", lambda _descriptor, _offset, length: reserved.append(length))
    path = b"/".join([b"\xff" * 255] * 15)
    files = [left(ino, (0, b"x"), (9, b"y"), path=path) for ino in range(20)]
    files.append(LeftOver(99, path, 6, True, True, (Shown(0, 50, None, SEGMENT, 50),), bytes(32)))
    made = kept.keep(tmp_path, "ID", msgspec.structs.replace(manifest(), mountpoint=path, why="\x01" * 5000), files)
    assert (made.folder / "manifest").stat().st_size <= reserved[0]


def test_nothing_is_left_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        kept.keep(tmp_path, "ID", manifest(), [left(1, (0, b"x"))])
    assert list(tmp_path.iterdir()) == []


def test_all_is_fsynced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        steps.append(f"{path.name} -> {target.name}")
        return rename(path, target)

    monkeypatch.setattr(kept.os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    kept.keep(tmp_path, "ID", manifest(), [left(1, (0, b"x"))])
    assert steps == ["data", "manifest", "names.txt", "ID.part", "ID.part -> ID", tmp_path.name]


def test_what_is_done_goes_and_the_last_takes_the_folder_along(tmp_path: Path) -> None:
    made = kept.keep(tmp_path, "ID", manifest(), [left(1, (0, b"one")), left(2, (0, b"second"))])
    one, second = made.manifest.files
    made.keep_only([second])
    again = kept.load(made.folder)
    assert [again.read(part) for part in again.manifest.files[0].parts] == [b"second"]
    again.keep_only([])
    assert list(tmp_path.iterdir()) == []
    assert one.inode == 1


OTHERS = tuple(Server(f"DFS{number}", b"new") for number in range(1, 5))


@pytest.mark.parametrize(
    ("identity", "servers", "is_same"),
    [
        (b"namespace", SERVERS, True),
        (b"namespace", OTHERS, True),  # all disks were replaced, one after the other
        (b"another", OTHERS, False),
        (b"", (*SERVERS[:2], *OTHERS[2:]), True),
        (b"", (*SERVERS[:1], *OTHERS[1:]), False),
        (b"", tuple(Server(server.name, b"") for server in SERVERS), False),
        (b"", tuple(Server(f"DFS{5 - i}", SERVERS[i].identity) for i in range(4)), False),
    ],
)
def test_the_same_namespace(identity: bytes, servers: tuple[Server, ...], is_same: bool) -> None:
    assert HERE.is_same_as(Namespace("alice", identity, servers)) is is_same
    assert not HERE.is_same_as(Namespace("bob", identity, servers))
