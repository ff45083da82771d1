"""What fails as Linux says."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest


def fails(number: int, action: Callable[[], object]) -> None:
    """It raises OSError with this number."""
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == number, errno.errorcode.get(caught.value.errno or 0, caught.value)
