"""A lease is counted by a clock that does not stand still while the machine sleeps."""

from __future__ import annotations

import inspect
import sys
import time

import pytest

from dfsfuse.common.clocks import lease_clock
from dfsfuse.namespace.map.log_map import LogMap


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such clock")
def test_it_counts_the_time_that_the_machine_slept() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = lease_clock()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_mount_compares_its_lease_by_it() -> None:
    assert inspect.signature(LogMap).parameters["clock"].default is lease_clock
