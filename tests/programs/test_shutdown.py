"""Shutting down a machine with mount and servers, in any order, with both bindings; also with a program that does not
end when told to, and that the mount cuts off."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import mounts
from support.mounts import Grid
from support.shutdown import LONGEST_S, OPTIONS, ORDERS, Machine, Order

pytestmark = [pytest.mark.programs, pytest.mark.timeout(200)]


@pytest.mark.parametrize("is_stubborn", [False, True], ids=["ends", "stubborn"])
@pytest.mark.parametrize("binding", ["kernel", "fusepy"])
@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Order, binding: str, is_stubborn: bool
) -> None:
    monkeypatch.setattr(mounts, "_state_folder", lambda: str(tmp_path / "state"))
    with Grid(tmp_path / "grid") as grid:
        mount = grid.mount(options=[*OPTIONS, "-o", f"binding={binding}"])
        machine = Machine(grid, mount, tmp_path, is_stubborn=is_stubborn)
        status, took_s = machine.switch_off(order)
        assert (status in (0, 6), took_s < LONGEST_S) == (True, True), (status, took_s)
        if order == "mount first":
            assert status == 0
        said = machine.switch_on()
        assert said.startswith("Nothing is kept") == (status == 0)
        assert machine.lost() == []
