"""A lease is measured by a clock that does not stop while the machine is suspended."""

from __future__ import annotations

import inspect
import runpy
import time

import pytest

from dfsfuse.common import clocks
from dfsfuse.common.clocks import lease_clock
from dfsfuse.namespace.map.log_map import LogMap


def test_it_counts_the_time_that_the_machine_slept() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = lease_clock()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_where_the_system_has_no_such_clock_it_is_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert runpy.run_path(clocks.__file__)["lease_clock"] is time.monotonic


def test_a_mount_compares_its_lease_by_it() -> None:
    assert inspect.signature(LogMap).parameters["clock"].default is lease_clock
