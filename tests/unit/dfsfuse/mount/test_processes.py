"""Other processes: who uses a folder, and that nobody can write to our terminal by a name."""

from __future__ import annotations

import os
from pathlib import Path

from dfsfuse.mount import processes
from dfsfuse.mount.processes import Process


def test_who_works_there_is_named(tmp_path: Path) -> None:
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


def test_a_file_system_that_is_mounted_here_only() -> None:
    assert processes.elsewhere("no:device") == []
