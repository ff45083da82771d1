"""Extended attributes: flags, limits, namespaces."""

from __future__ import annotations

import errno

import pytest
from support.errnos import fails

from dfsfuse.namespace.ops import xattrs


def test_set_get_remove() -> None:
    kept = xattrs.with_value({}, b"user.a", b"1")
    kept = xattrs.with_value(kept, b"user.b", b"")
    assert xattrs.get(kept, b"user.a") == b"1"
    assert xattrs.get(kept, b"user.b") == b""
    assert xattrs.without(kept, b"user.a") == {b"user.b": b""}
    fails(errno.ENODATA, lambda: xattrs.get(kept, b"user.c"))
    fails(errno.ENODATA, lambda: xattrs.without(kept, b"user.c"))


def test_create_and_replace() -> None:
    kept = xattrs.with_value({}, b"user.a", b"1", xattrs.CREATE)
    fails(errno.EEXIST, lambda: xattrs.with_value(kept, b"user.a", b"2", xattrs.CREATE))
    fails(errno.ENODATA, lambda: xattrs.with_value(kept, b"user.b", b"2", xattrs.REPLACE))
    fails(errno.EINVAL, lambda: xattrs.with_value(kept, b"user.b", b"2", 3))
    assert xattrs.with_value(kept, b"user.a", b"2", xattrs.REPLACE) == {b"user.a": b"2"}


@pytest.mark.parametrize("name", [b"security.capability", b"system.posix_acl_access", b"trusted.x", b"plain", b""])
def test_other_namespaces_are_not_supported(name: bytes) -> None:
    fails(errno.EOPNOTSUPP, lambda: xattrs.get({}, name))
    fails(errno.EOPNOTSUPP, lambda: xattrs.with_value({}, name, b"x"))


def test_limits() -> None:
    fails(errno.ERANGE, lambda: xattrs.get({}, b"user." + b"n" * 251))
    fails(errno.EINVAL, lambda: xattrs.get({}, b"user."))
    fails(errno.E2BIG, lambda: xattrs.with_value({}, b"user.a", bytes(64 * 1024 + 1)))
    kept = xattrs.with_value({}, b"user.a", bytes(60 * 1024))
    fails(errno.ENOSPC, lambda: xattrs.with_value(kept, b"user.b", bytes(5 * 1024)))
    assert len(xattrs.with_value(kept, b"user.a", bytes(61 * 1024))) == 1
