"""What is found out about who asks."""

from __future__ import annotations

import os

from dfsfuse.fusekernel.values import Context
from dfsfuse.mount.callers import is_in_group


def test_groups_are_those_of_the_process() -> None:
    mine = os.getpid()
    assert is_in_group(Context(1, 77, 0, 1), 77), "his own group needs no look"
    assert all(is_in_group(Context(1, 77, mine, 1), group) for group in os.getgroups())
    assert not is_in_group(Context(1, 77, mine, 1), 2**31)


def test_who_cannot_be_looked_at_is_in_no_other_group() -> None:
    for pid in (0, 2**30):
        assert not is_in_group(Context(1, 77, pid, 1), 0)
