"""The fixture `dfc`: the command line with a namespace in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.memory_dfc import Dfc


@pytest.fixture
def dfc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Dfc]:
    """dfc in an empty folder, with an empty namespace."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    runner = Dfc(here, monkeypatch, capsysbinary)
    yield runner
    assert runner.access.open == 0, "a connection was left open"
