"""The parent reports what became of the child, and waits until its deadline at most. Forks in a separate process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = r"""
import os, sys, time
from pathlib import Path
from dfsfuse.cli.mount.background import Report, run

def ready(report):
    report(Report(0)); report(Report(9, "later reports are dropped")); return 0
def verbose(report):
    report(Report(0, "\U0001f30a" * 9000)); return 0
def refused(report):
    report(Report(4, "DFS1 refuses alice")); return 4
def dies(report):
    os.kill(os.getpid(), 9)
def raises(report):
    raise ValueError("from the child")
def hangs(report):
    print("hanging", file=sys.stderr, flush=True); time.sleep(100)
def who(report):
    before = os.getsid(0) == os.getsid(os.getppid()) and os.getpgid(0) == os.getpgid(os.getppid())
    reader, writer = os.pipe()
    if os.fork() == 0:  # looks at the child once it has reported
        os.read(reader, 1)
        after = os.getsid(os.getppid()) == os.getppid()
        print(before, after, os.getcwd(), os.readlink('/proc/self/fd/0'), file=sys.stderr, flush=True)
        os._exit(0)
    report(Report(0)); os.write(writer, b"."); os.wait(); return 0

report = run(globals()[sys.argv[1]], log_file=Path(sys.argv[2]), timeout_s=float(sys.argv[3]))
print(report.exit_code, report.text if report.text.isascii() else len(report.text))
"""


def outcome(work: str, log: Path, timeout_s: float = 30.0) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, work, str(log), str(timeout_s)], capture_output=True, timeout=60, check=True
    )
    code, _, text = done.stdout.decode().strip().partition(" ")
    return int(code), text


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_ready(log: Path) -> None:
    assert outcome("ready", log) == (0, "")


def test_a_long_text_in_whatever_script_is_no_failure(log: Path) -> None:
    assert outcome("verbose", log) == (0, "8000")


def test_a_sentence_and_a_code(log: Path) -> None:
    assert outcome("refused", log) == (4, "DFS1 refuses alice")


def test_a_child_that_dies(log: Path) -> None:
    code, text = outcome("dies", log)
    assert code == 1
    assert str(log) in text


def test_a_child_that_raises_leaves_the_traceback_in_the_log(log: Path) -> None:
    assert outcome("raises", log)[0] == 1
    assert "ValueError: from the child" in log.read_text()


def test_a_child_that_hangs_is_ended(log: Path) -> None:
    code, text = outcome("hangs", log, timeout_s=1.0)
    assert code == 13
    assert str(log) in text
    assert log.read_text() == "hanging\n"


def test_the_child_leaves_the_session_when_it_is_ready_and_not_before(log: Path) -> None:
    """A process that mounts for autofs must stay in autofs's process group until the mount is made."""
    assert outcome("who", log) == (0, "")
    deadline = time.monotonic() + 30
    while not log.read_text() and time.monotonic() < deadline:  # the parent does not wait for what comes after
        time.sleep(0.01)
    assert log.read_text() == "True True / /dev/null\n"
