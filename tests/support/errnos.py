"""Checking that calls fail with Linux's error numbers."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest


def fails(number: int, action: Callable[[], object]) -> None:
    """Check that the action raises OSError with this number."""
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == number, errno.errorcode.get(caught.value.errno or 0, caught.value)
