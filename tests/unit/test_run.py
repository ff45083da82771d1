"""`make test` ends in time, reports what failed and what was running, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import REPOSITORY

from tests import conftest, run

INNER = """
import os, signal, subprocess, tempfile
from pathlib import Path

def test_right(): pass

def test_wrong(): assert not "right"

def test_daemon():
    Path(tempfile.mkdtemp(), "left").write_text("behind")
    command = ["setsid", "sh", "-c", "sleep 1000 & echo $!; sleep 1000"]
    daemon = subprocess.Popen(command, env={{"PATH": os.environ["PATH"]}}, stdout=subprocess.PIPE)
    Path("{pids}").write_bytes(daemon.stdout.readline())
    Path("{pids}.folder").write_text(tempfile.gettempdir())

def test_last(): {last}
"""
UNTIL_THE_LIMIT = "os.kill(os.getppid(), signal.SIGALRM); os.read(os.pipe()[0], 1)"
"""Sends the signal of the time limit, and then does not end."""
LIMIT_S = 80


def _run(tmp_path: Path, last: str) -> tuple[int, str]:
    pids = tmp_path / "pids"
    (tmp_path / "test_inner.py").write_text(INNER.format(pids=pids, last=last))
    (tmp_path / "conftest.py").write_text((REPOSITORY / "tests/conftest.py").read_text())
    arguments = ["-q", "--instafail", "-p", "no:cacheprovider", "-W", "ignore", "-c", os.devnull]
    command = [sys.executable, str(REPOSITORY / "tests/run.py"), "--limit-s", str(LIMIT_S), "--", *arguments]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=90,
    )
    assert not _is_running(int(pids.read_text())), "a daemon that a test started is still running"
    folder = Path(f"{pids}.folder").read_text()
    assert not Path(folder).exists(), "the temporary folder is still there"
    return done.returncode, done.stdout


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    except OSError:
        return False


def test_a_run_that_ends_by_itself_leaves_nothing_behind(tmp_path: Path) -> None:
    status, output = _run(tmp_path, "pass")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "1 failed, 3 passed" in output


def test_at_the_limit_it_says_so_and_names_what_failed_and_what_was_running(tmp_path: Path) -> None:
    status, output = _run(tmp_path, UNTIL_THE_LIMIT)
    assert status == run.TIMED_OUT, output
    said = output.index(f"were not finished within {LIMIT_S} s")
    assert output.index('assert not "right"') < said, "failures must be shown as they happen"
    assert "RUNNING test_inner.py::test_last" in output[said:]
    assert "FAILED" in output[said:]
    assert "test_wrong" in output[said:]


class Item:
    """Stands in for pytest's Item: a test with marks."""

    def __init__(self, *marks: str) -> None:
        self.marks = marks

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None


def test_what_takes_minutes_begins_first() -> None:
    short, long, other, longer = items = [Item("integration"), Item("integration", "long"), Item(), Item("long")]
    conftest.pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert items == [long, longer, short, other]


def test_mounts_below_a_folder_are_found_whatever_their_names() -> None:
    table = (
        b"36 35 0:45 / /tmp/x/a\\040b\\012c rw - fuse.dfs s rw\n"
        b"37 35 0:46 / /tmp/x/a\\040b\\012c/\xff\\134 rw shared:1 - tmpfs s rw\n"
        b"38 35 0:47 / /tmp/xy rw - tmpfs s rw\n"
        b"39 35 0:48 / /home/c\rd rw - fuse s\r rw\n"
    )
    assert run.mounts_below(Path("/tmp/x"), table) == [b"/tmp/x/a b\nc/\xff\\", b"/tmp/x/a b\nc"]


def test_a_parent_is_read_whatever_the_name_of_the_process() -> None:
    assert run.parent_in(b"7 (a) R 1 (b)\n) S 42 7 7 0 -1") == 42


def test_descendants_are_those_below_and_no_others() -> None:
    assert sorted(run.descendants(1, {2: 1, 3: 2, 4: 9, 9: 8})) == [2, 3]
