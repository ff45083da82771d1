"""Local files appear whole or not at all, and only regular files are read or replaced."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pytest

from dfsfuse.cli.dfc import local_files
from dfsfuse.cli.dfc.local_files import Facts
from dfsfuse.cli.reports import CommandError
from dfsfuse.vfs.write.putting import Hole

FACTS = Facts(mode=0o4640, atime_ns=1_000_000_001, mtime_ns=2_000_000_002)


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with local_files.replacing(target, FACTS) as file:
        local_files.SparseWriter(file, target).write(b"new")
        assert target.read_bytes() == b"old"
        hidden = [path for path in tmp_path.iterdir() if path != target]
        assert [stat.S_IMODE(path.stat().st_mode) for path in hidden] == [0o600]
        assert hidden[0].name.startswith(".")
    found = target.stat()
    assert target.read_bytes() == b"new"
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, 2_000_000_002)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("end", [RuntimeError, KeyboardInterrupt, OSError])
def test_what_is_not_finished_leaves_nothing(tmp_path: Path, end: type[BaseException]) -> None:
    target = tmp_path / "file"
    with pytest.raises(end), local_files.replacing(target, FACTS) as file:
        file.write(b"half")
        raise end
    assert list(tmp_path.iterdir()) == []


def test_only_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, word in (("fifo", "not a regular file"), ("folder", "is a folder")):
        with (
            pytest.raises(CommandError, match=word),
            local_files.replacing(tmp_path / name, FACTS),
        ):
            raise AssertionError
    with (
        pytest.raises(CommandError, match="not a regular file"),
        local_files.replacing(Path("/dev/null"), FACTS),
    ):
        raise AssertionError
    with (
        pytest.raises(CommandError, match=r"^local .*No such file"),
        local_files.replacing(tmp_path / "no" / "file", FACTS),
    ):
        raise AssertionError


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CommandError, match="is a FIFO"), local_files.reading(tmp_path / "fifo"):
        raise AssertionError


class Dribble(io.BytesIO):
    """Like a pipe: each read returns only a part."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 1_000_003))


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (4 << 20) + 1, 9 << 20])
def test_chunks_are_full_whatever_the_reads_give(size: int) -> None:
    data = bytes(size)
    for stream in (io.BytesIO(data), Dribble(data)):
        found = list(local_files.chunks(stream, Path("x")))
        assert b"".join(found) == data
        assert all(len(chunk) == 4 << 20 for chunk in found[:-1])


Z = local_files.ZEROS_BYTES
SPARSE = {
    "a hole before": [Hole(3 << 20), b"data"],
    "a hole after": [b"d" * 5000, Hole(3 << 20)],
    "holes only": [Hole(5 << 30)],
    "holes between": [Hole(1 << 20), b"a" * 4096, Hole(1 << 20), b"b" * 4096, Hole(9 << 20), b"c" * (5 << 20)],
    "no hole": [b"x" * 70_000],
    "nothing": [],
}


def sparse_file(path: Path, stretches: list[bytes | Hole]) -> Path:
    with path.open("wb") as file:
        for stretch in stretches:
            if isinstance(stretch, Hole):
                file.seek(stretch.length, os.SEEK_CUR)
            else:
                file.write(stretch)
        file.truncate()
    return path


def joined(stretches: Iterable[bytes | Hole]) -> list[bytes | Hole]:
    """Merge neighbouring data, and leave holes as they are."""
    found: list[bytes | Hole] = []
    for stretch in stretches:
        if found and isinstance(found[-1], bytes) and isinstance(stretch, bytes):
            found[-1] += stretch
        else:
            found.append(stretch)
    return found


def test_what_a_killed_process_left_does_not_get_in_the_way(tmp_path: Path) -> None:
    """In a container the next process may have the same number."""
    (tmp_path / f".dfc-{os.getpid()}.part").symlink_to("half")
    local_files.put_link(tmp_path / "link", b"target", FACTS)
    assert (tmp_path / "link").readlink() == Path("target")


@pytest.mark.parametrize("name", SPARSE)
def test_holes_are_read_as_such_and_written_as_such(tmp_path: Path, name: str) -> None:
    source = sparse_file(tmp_path / "source", SPARSE[name])
    target = tmp_path / "target"
    with local_files.reading(source) as (file, found):
        chunks = list(local_files.stretches(file, found, source))
    data = [chunk for chunk in chunks if isinstance(chunk, bytes)]
    assert all(len(chunk) <= local_files.CHUNK_BYTES for chunk in data)
    allocated = -(-sum(len(part) for part in SPARSE[name] if isinstance(part, bytes)) // 4096) + 3
    assert sum(map(len, data)) <= allocated * 4096  # a file system reports holes in whole blocks
    with local_files.replacing(target, FACTS) as out:
        writer = local_files.SparseWriter(out, target)
        assert sum(map(writer.write, chunks)) == source.stat().st_size
        writer.finish()
    assert target.stat().st_size == source.stat().st_size
    assert target.stat().st_blocks <= allocated * 8
    if source.stat().st_size < 1 << 30:
        assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_tell_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    source = sparse_file(tmp_path / "source", [Hole(5 << 20), b"data", Hole(1 << 20)])
    seek = os.lseek

    def seek_but_no_holes(file: int, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(number, os.strerror(number))
        return seek(file, offset, whence)

    monkeypatch.setattr(os, "lseek", seek_but_no_holes)
    with local_files.reading(source) as (file, found):
        chunks = list(local_files.stretches(file, found, source))
    assert joined(chunks) == [source.read_bytes()]


def test_what_is_appended_at_the_end_of_reading_is_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparse_file(tmp_path / "source", [Hole(1 << 20), b"data", Hole(1 << 20)])
    seek, is_appended = local_files._seek, False

    def seek_and_append(file: BinaryIO, offset: int, whence: int, path: Path) -> int | None:
        nonlocal is_appended
        found = seek(file, offset, whence, path)
        if found is None and not is_appended:
            is_appended = True
            with source.open("ab") as end:
                end.write(b"appended")
        return found

    monkeypatch.setattr(local_files, "_seek", seek_and_append)
    with local_files.reading(source) as (file, found):
        chunks = list(local_files.stretches(file, found, source))
    assert b"".join(bytes(part.length) if isinstance(part, Hole) else part for part in chunks) == source.read_bytes()


def test_a_file_that_is_cut_while_it_is_read_ends(tmp_path: Path) -> None:
    source = sparse_file(tmp_path / "source", [Hole(1 << 20), b"d" * (9 << 20), Hole(1 << 20)])
    with local_files.reading(source) as (file, found):
        reading = local_files.stretches(file, found, source)
        assert next(reading) == Hole(1 << 20)
        os.truncate(source, 0)
        assert list(reading) == []


@pytest.mark.parametrize(
    ("data", "runs"),
    [
        (bytes(Z - 1), []),
        (bytes(Z), [(0, Z)]),
        (b"x" + bytes(3 * Z), [(Z, 3 * Z)]),
        (bytes(2 * Z) + b"x", [(0, 2 * Z)]),
        (b"\0x" + bytes(Z) + b"x" * Z + bytes(5 * Z), [(3 * Z, 7 * Z)]),
    ],
)
def test_long_runs_of_zeros(data: bytes, runs: list[tuple[int, int]]) -> None:
    assert list(local_files.zero_runs(data)) == runs


def test_zeros_become_a_hole_also_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "target"
    data = b"a" * Z + bytes(4 * Z) + b"b" + bytes(8 * Z)
    with local_files.replacing(target, FACTS) as out:
        writer = local_files.SparseWriter(out, target)
        writer.write(data)
        writer.finish()
    assert target.read_bytes() == data
    assert target.stat().st_blocks * 512 <= 3 * Z


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"../x", b"a\0b"])
def test_names_from_servers_cannot_lead_elsewhere(name: bytes) -> None:
    with pytest.raises(CommandError):
        local_files.safe_name(name)


def test_links_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "link"
    local_files.put_link(path, b"one", FACTS)
    local_files.put_link(path, b"two", FACTS)
    assert path.readlink() == Path("two")
    assert path.lstat().st_mtime_ns == FACTS.mtime_ns
    assert list(tmp_path.iterdir()) == [path]
