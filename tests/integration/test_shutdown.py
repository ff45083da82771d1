"""Shutting down a machine with mount and servers: SIGTERM to all at once. tests/programs/test_shutdown.py covers other
orders."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import mounts
from support.mounts import Grid
from support.shutdown import LONGEST_S, OPTIONS, Machine

pytestmark = pytest.mark.integration


def test_nothing_is_lost_when_mount_servers_and_programs_are_told_to_end_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_state_folder", lambda: str(tmp_path / "state"))
    with Grid(tmp_path / "grid") as grid:
        machine = Machine(grid, grid.mount(options=OPTIONS), tmp_path)
        status, took_s = machine.switch_off("all at once")
        assert status in (0, 6)
        assert took_s < LONGEST_S
        machine.switch_on()
        assert machine.lost() == []
