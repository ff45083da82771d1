"""Stopping `.ci/run` stops what it runs: make gets the signal, and can clean up."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.servers import REPOSITORY

MAKE = """#!/bin/bash
echo "$@" >> "{log}"
if [ "$1" = "{until}" ]; then
    sleep 100 &
    trap 'kill $!; echo "cleaned up" >> "{log}"; exit 1' HUP INT TERM
    echo begun > "{begun}"
    wait
fi
"""
STEPS = {"fuse": "fuse programs venv", "check": "check TEST_TIMEOUT_S=1020"}


@pytest.mark.parametrize("until", STEPS)
@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_a_signal_to_it_alone_reaches_make(tmp_path: Path, until: str, name: str) -> None:
    log, begun, make = (tmp_path / name for name in ("log", "begun", "make"))
    os.mkfifo(begun)
    make.write_text(MAKE.format(log=log, until=until, begun=begun))
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    number = signal.Signals[f"SIG{name}"]
    process = subprocess.Popen([REPOSITORY / ".ci/run"], env=environment)
    try:
        assert begun.read_text() == "begun\n"
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    finally:
        process.kill()
    steps = list(STEPS)[: list(STEPS).index(until) + 1]
    assert log.read_text().splitlines() == [*(STEPS[step] for step in steps), "cleaned up"]


def test_it_fails_with_make(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\nexit 7\n")
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run([REPOSITORY / ".ci/run"], env=environment, check=False, timeout=30).returncode == 7
