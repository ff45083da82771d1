"""Ctrl-C while a program is being loaded, and just after: exit status 130, and no traceback."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from support.servers import REPOSITORY

PROGRAMS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
RUN = """
import importlib, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
module, name = sys.argv.pop(1).split(":")
getattr(importlib.import_module(module), name)()
"""
START = "import signal, sys; from dfs_server.shared.starting import start; "


def python(script: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=REPOSITORY)


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_an_installed_program_that_is_interrupted_while_it_is_loaded_ends_quietly(program: str) -> None:
    done = python(RUN, PROGRAMS[program], "--help")
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_one_that_is_interrupted_before_the_command_handles_it_ends_quietly() -> None:
    done = python(START + "start(lambda: lambda: signal.raise_signal(signal.SIGINT))")
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """Shells start background jobs like that."""
    interrupt = "signal.raise_signal(signal.SIGINT)"
    script = f"signal.signal(signal.SIGINT, signal.SIG_IGN); start(lambda: {interrupt} or (lambda: {interrupt}))"
    done = python(START + script)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_command_finds_what_python_does_with_the_signal() -> None:
    script = "start(lambda: lambda: sys.exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler))"
    assert python(START + script).returncode == 0
