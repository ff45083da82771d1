"""Extended attributes, kept in the inode's record. Pure: from a dictionary to a new one.

Only `user.` attributes are kept. Limits as on Linux: a name 255 bytes, a value 64 KiB; and all of one inode 64 KiB.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from dfsfuse.errors import posix_error

CREATE: Final = 1
"""XATTR_CREATE of <linux/xattr.h>: it must not be there."""
REPLACE: Final = 2
"""XATTR_REPLACE: it must be there."""
NAME_MAX_BYTES: Final = 255
VALUE_MAX_BYTES: Final = 64 * 1024
TOTAL_MAX_BYTES: Final = 64 * 1024
_PREFIX: Final = b"user."


def check_name(name: bytes) -> None:
    """Raise OSError (EOPNOTSUPP, ERANGE, EINVAL) for a name that is not kept."""
    if not name.startswith(_PREFIX):
        raise posix_error(errno.EOPNOTSUPP)
    if len(name) > NAME_MAX_BYTES:
        raise posix_error(errno.ERANGE)
    if name == _PREFIX or b"\0" in name:
        raise posix_error(errno.EINVAL)


def get(xattrs: Mapping[bytes, bytes], name: bytes) -> bytes:
    """Return the value. Raises OSError (ENODATA...)."""
    check_name(name)
    if name not in xattrs:
        raise posix_error(errno.ENODATA)
    return xattrs[name]


def with_value(xattrs: Mapping[bytes, bytes], name: bytes, value: bytes, flags: int = 0) -> dict[bytes, bytes]:
    """Return the attributes with this one set. Raises OSError (EEXIST, ENODATA, E2BIG, ENOSPC, EINVAL...)."""
    check_name(name)
    if flags not in (0, CREATE, REPLACE):
        raise posix_error(errno.EINVAL)
    if flags == CREATE and name in xattrs:
        raise posix_error(errno.EEXIST)
    if flags == REPLACE and name not in xattrs:
        raise posix_error(errno.ENODATA)
    if len(value) > VALUE_MAX_BYTES:
        raise posix_error(errno.E2BIG)
    changed = {**xattrs, name: bytes(value)}
    if sum(len(known) + len(kept) for known, kept in changed.items()) > TOTAL_MAX_BYTES:
        raise posix_error(errno.ENOSPC)
    return changed


def without(xattrs: Mapping[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    """Return the attributes without this one. Raises OSError (ENODATA...)."""
    get(xattrs, name)
    return {known: value for known, value in xattrs.items() if known != name}
