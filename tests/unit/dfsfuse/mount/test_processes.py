"""Other processes: which of them use a folder; and a process's name cannot send control characters to the terminal."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dfsfuse.mount import mount_table, processes
from dfsfuse.mount.mount_table import Mount
from dfsfuse.mount.processes import Process


def test_processes_that_work_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (tmp_path / "file").open():
        (user,) = processes.using(tmp_path)
    assert user.endswith(f"({os.getpid()})")
    assert processes.using(tmp_path) == []


def test_a_process_cannot_write_to_our_terminal_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "comm").write_bytes(b"a\x1b[2Jb\n c)\xff\n")
    assert Process(tmp_path).name() == "a?[2Jb? c)\N{REPLACEMENT CHARACTER}"


def test_what_is_gone_is_left_out(tmp_path: Path) -> None:
    gone = Process(tmp_path / "1")
    assert (gone.name(), gone.words(), list(gone.targets())) == ("process", [], [])
    assert (gone.mounts(), gone.namespace()) == ([], "")


def test_a_few_are_named() -> None:
    assert processes.few([str(number) for number in range(8)]) == ["0", "1", "2", "3", "4", "3 more"]


def test_the_names_of_paths_that_begin_alike() -> None:
    assert processes.is_below("/mnt", Path("/mnt")) and processes.is_below("/mnt/a", Path("/mnt"))
    assert processes.is_below("/a", Path("/"))
    assert not processes.is_below("/mnt2", Path("/mnt"))


GONE = Mount(41, 29, "0:1048576", "/mnt/dfs", "fuse.dfs", "alice@host:1,2,3,4")
"""A device that is mounted nowhere, since the kernel's numbers have 20 bits."""


def table(tmp_path: Path, pid: int, namespace: str, *lines: str) -> Process:
    """A process in this mount namespace, with this mount table."""
    folder = tmp_path / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns/mnt").symlink_to(namespace)
    (folder / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    return Process(folder)


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("50 29 0:1048576 / /elsewhere rw - fuse.dfs alice@host:1,2,3,4 rw", True),
        ("50 29 0:1048577 / /mnt/dfs rw - fuse.dfs alice@host:1,2,3,4 rw", False),
        ("50 29 0:1048576 / /mnt/dfs rw - fuse.dfs alice@host:5,6,7,8 rw", False),  # the number was used again
        ("50 29 0:1048576 / /mnt/dfs rw - tmpfs none rw", False),
    ],
)
def test_processes_with_a_copy_of_the_mount_in_another_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, is_found: bool
) -> None:
    other = table(tmp_path, 10, "mnt:[1]", line)
    same = table(tmp_path, 11, "mnt:[1]", line)
    monkeypatch.setattr(processes, "all_processes", lambda: [other, same])
    assert processes.elsewhere(GONE) == [other] * is_found


def test_a_device_that_is_mounted_here_is_another_file_system_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = mount_table.read()[0]
    other = table(tmp_path, 10, "mnt:[1]", f"50 29 {here.device} / /x rw - fuse.dfs alice@host:1,2,3,4 rw")
    monkeypatch.setattr(processes, "all_processes", lambda: [other])
    assert processes.elsewhere(replace(GONE, device=here.device)) == []
