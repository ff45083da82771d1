"""Local files appear whole or not at all, and nothing that is not a file is read or replaced."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from dfsfuse.cli import local_files
from dfsfuse.cli.local_files import Facts
from dfsfuse.cli.reports import CommandError

FACTS = Facts(mode=0o4640, atime_ns=1_000_000_001, mtime_ns=2_000_000_002)


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with local_files.replacing(target, FACTS) as file:
        local_files.write_all(file, b"new", target)
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
    """A pipe: each read gives a little."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 1_000_003))


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (4 << 20) + 1, 9 << 20])
def test_chunks_are_full_whatever_the_reads_give(size: int) -> None:
    data = bytes(size)
    for stream in (io.BytesIO(data), Dribble(data)):
        found = list(local_files.chunks(stream, Path("x")))
        assert b"".join(found) == data
        assert all(len(chunk) == 4 << 20 for chunk in found[:-1])


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
