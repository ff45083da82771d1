"""Commands with a deadline, and what happens to those that miss it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dfsfuse.mount import children

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_how_a_command_ended_and_what_it_said() -> None:
    code = "import os, sys; print('not this'); sys.exit('two\\nlines in ' + os.environ['LC_ALL'])"
    assert children.run([sys.executable, "-c", code], 60.0) == (1, "two lines in C")


def test_what_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []
    kill = subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "kill", lambda child: (killed.append(child), kill(child)))
    assert children.run(FOREVER, 0.1) is None
    assert [child.wait(60.0) for child in killed] == [-signal.SIGKILL]


def test_what_cannot_be_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a process waits in the kernel for one that hangs."""
    left = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda child: left.append(child))  # noqa: PLW0108 - a method
    assert children.run(FOREVER, 0.1) is None
    (child,) = left
    assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    assert child.wait(60.0) == -signal.SIGKILL
