"""What is found out about the process behind a request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dfsfuse.fusekernel.values import Context
from dfsfuse.mount.callers import is_ending, is_in_group, is_told_to_end


def test_groups_are_those_of_the_process() -> None:
    mine = os.getpid()
    assert is_in_group(Context(1, 77, 0, 1), 77), "the caller's own group needs no lookup"
    assert all(is_in_group(Context(1, 77, mine, 1), group) for group in os.getgroups())
    assert not is_in_group(Context(1, 77, mine, 1), 2**31)


def test_a_process_that_cannot_be_inspected_is_in_no_other_group() -> None:
    for pid in (0, 2**30):
        assert not is_in_group(Context(1, 77, pid, 1), 0)


def described(proc: Path, *, pending: int = 0, shared: int = 0, blocked: int = 0, ignored: int = 0) -> Path:
    (proc / "42").mkdir()
    lines = {"Name": "odd:name", "SigPnd": pending, "ShdPnd": shared, "SigBlk": blocked, "SigIgn": ignored, "SigCgt": 0}
    text = "".join(
        f"{name}:\t{value if isinstance(value, str) else f'{value:016x}'}\n" for name, value in lines.items()
    )
    (proc / "42" / "status").write_text(text)
    return proc


def mask(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGALRM])
def test_a_signal_that_ends_a_program(tmp_path: Path, number: int) -> None:
    assert is_told_to_end(42, described(tmp_path, pending=mask(number)))


def test_a_signal_to_the_whole_process_counts_and_one_that_it_blocks_or_ignores_does_not(tmp_path: Path) -> None:
    for name, wanted in (("shared", True), ("blocked", False), ("ignored", False)):
        (tmp_path / name).mkdir()
        masks = {"shared": mask(signal.SIGTERM), **({name: mask(signal.SIGTERM)} if name != "shared" else {})}
        assert is_told_to_end(42, described(tmp_path / name, **masks)) == wanted


def test_news_are_no_reason_to_end(tmp_path: Path) -> None:
    news = mask(signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGTSTP)
    assert not is_told_to_end(42, described(tmp_path, pending=news, shared=news))


def test_a_process_that_is_gone_waits_for_nothing(tmp_path: Path) -> None:
    assert is_told_to_end(42, tmp_path)
    assert not is_ending(42, tmp_path)


def test_an_ending_process_is_recognised_by_the_kernels_flag(tmp_path: Path) -> None:
    (tmp_path / "42").mkdir()
    for flags, ending in ((0x400000, False), (0x400004, True)):
        (tmp_path / "42" / "stat").write_text(f"42 (a) b) R 1 1 1 0 -1 {flags} 0 0 0\n")
        assert is_ending(42, tmp_path) == ending
    (tmp_path / "42" / "stat").write_text("42")
    assert not is_ending(42, tmp_path)


def test_real_processes() -> None:
    assert not is_ending(os.getpid())
    assert not is_told_to_end(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_ending(child.pid), "it has ended and was not reaped yet"


@pytest.mark.parametrize("name", [b"x\rGroups: 4242", b"x\rSigPnd:\tzz"])
def test_the_name_of_a_program_is_not_taken_for_another_field(name: bytes) -> None:
    program = (
        "import os, sys; open('/proc/self/comm', 'wb').write(os.fsencode(sys.argv[1])); print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as odd:
        assert odd.stdout is not None and odd.stdout.readline()
        assert not is_in_group(Context(1, 77, odd.pid, 1), 4242)
        assert not is_told_to_end(odd.pid)
        odd.communicate(b"\n")
