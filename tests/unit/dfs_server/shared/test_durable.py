"""Files are written completely, or stay as they were."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dfs_server.shared import durable


def test_a_file_is_written_with_its_mode_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "x"
    durable.write_file(path, b"first", mode=0o600)
    durable.write_file(path, b"second" * 1000, mode=0o600)
    assert path.read_bytes() == b"second" * 1000
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    durable.write_file(path, b"first")

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        durable.write_file(path, b"second")
    assert path.read_bytes() == b"first"


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:3]))
    durable.write_file(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_folder_may_be_there_already_but_not_a_file(tmp_path: Path) -> None:
    durable.make_folder(tmp_path / "a")
    durable.make_folder(tmp_path / "a")
    (tmp_path / "b").touch()
    with pytest.raises(FileExistsError):
        durable.make_folder(tmp_path / "b")
