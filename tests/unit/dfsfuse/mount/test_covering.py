"""What a mount covers is determined from the path, without touching what is mounted there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import dfsfuse
from dfsfuse.mount import covering, processes
from dfsfuse.mount.errors import MountpointError
from dfsfuse.mount.processes import Process


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "mnt"
    path.mkdir()
    (tmp_path / "beside").mkdir()
    (tmp_path / "link").symlink_to("mnt/below")
    (tmp_path / "absolute").symlink_to(path)
    (tmp_path / "back").symlink_to("beside/../mnt")
    (tmp_path / "ring").symlink_to("ring")
    return path


@pytest.mark.parametrize("path", ["mnt", "mnt/a/b", "link", "link/a", "absolute/x", "back", "beside/../mnt/a"])
def test_covered(mountpoint: Path, path: str) -> None:
    assert covering.covers(mountpoint, mountpoint.parent / path)
    assert covering.covers(Path("/"), mountpoint.parent / path)


@pytest.mark.parametrize("path", [".", "mnt2", "beside/a", "mnt/../beside", "ring", "ring/a", "nowhere/mnt"])
def test_not_covered(mountpoint: Path, path: str) -> None:
    covered_on_the_way = path.startswith("mnt/..")
    assert covering.covers(mountpoint, mountpoint.parent / path) is covered_on_the_way


def test_nothing_below_the_mountpoint_is_touched(mountpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[str] = []
    readlink = os.readlink

    def watched(path: str) -> str:
        touched.append(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", watched)
    assert covering.covers(mountpoint, mountpoint.parent / "link" / "a")
    assert touched and not any(path.startswith(str(mountpoint)) for path in touched)


def test_what_is_needed_is_named(mountpoint: Path) -> None:
    covering.refuse(mountpoint, [("the log", mountpoint.parent / "log")])
    with pytest.raises(MountpointError, match=r"would cover the log \(.*/mnt/log\)"):
        covering.refuse(mountpoint, [("the log", mountpoint / "log")])


@pytest.mark.parametrize("path", [Path(dfsfuse.__file__).parent, Path(sys.prefix), Path(os.__file__).parent, "/etc"])
def test_the_program_and_its_python_are_needed(path: Path | str) -> None:
    with pytest.raises(MountpointError):
        covering.refuse(Path(os.path.realpath(path)), covering.of_every_mount())


def test_a_server_that_works_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, words in enumerate([b"python\0-m\0dfs_server\0DFS1", b"/opt/bin/dfs-server\0DFS2", b"vi\0DFS3"], 1):
        (tmp_path / str(number) / "fd").mkdir(parents=True)
        (tmp_path / str(number) / "cmdline").write_bytes(words)
        (tmp_path / str(number) / "fd/3").symlink_to(f"/mnt/srv/DFS{number}/lock")
    found = [Process(tmp_path / str(number)) for number in (1, 2, 3)]
    monkeypatch.setattr(processes, "all_processes", lambda: found)
    assert [str(path) for _, path in covering.servers_below(Path("/mnt"))] == [
        "/mnt/srv/DFS1/lock",
        "/mnt/srv/DFS2/lock",
    ]
    assert list(covering.servers_below(Path("/mnt/srv/DFS"))) == []


def test_modules_are_not_looked_for_in_the_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "below"), "/elsewhere"])
    covering.forget_covered_imports(tmp_path.resolve())
    assert sys.path == ["/elsewhere"]
