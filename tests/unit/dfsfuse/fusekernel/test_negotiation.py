"""INIT: what is agreed on with kernels of several versions."""

from __future__ import annotations

import pytest
from support.fake_kernel import ALL_FLAGS, init_body

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.negotiation import DEFAULT_FLAGS, Settings, UnsupportedKernelError, negotiate
from dfsfuse.fusekernel.requests import MalformedError, Request
from dfsfuse.fusekernel.values import Context


def init(body: bytes) -> Request:
    return Request(wire.FUSE_INIT, 0, Context(0, 0, 0, 2), memoryview(body))


def test_a_new_kernel() -> None:
    agreed, answer = negotiate(init(init_body(7, 45)), Settings())
    fields = wire.fuse_init_out.unpack(answer)
    assert agreed is not None
    assert (agreed.minor, agreed.max_write_bytes) == (38, 1 << 20)
    major, minor, readahead, low, background, congestion, write, granularity, pages, _, high, _, timeout = fields
    assert (major, minor, readahead, write, pages, granularity) == (7, 38, 131072, 1 << 20, 256, 1)
    assert (background, congestion, timeout) == (64, 48, 0)
    assert low | high << 32 == agreed.flags == DEFAULT_FLAGS | wire.FUSE_MAX_PAGES | wire.FUSE_INIT_EXT


@pytest.mark.parametrize(
    "unwanted",
    [
        wire.FUSE_WRITEBACK_CACHE,
        wire.FUSE_READDIRPLUS_AUTO,
        wire.FUSE_EXPORT_SUPPORT,
        wire.FUSE_POSIX_ACL,
        wire.FUSE_NO_OPEN_SUPPORT,
        wire.FUSE_POSIX_LOCKS,
        wire.FUSE_FLOCK_LOCKS,
        wire.FUSE_HANDLE_KILLPRIV_V2,
        wire.FUSE_DONT_MASK,
        wire.FUSE_SPLICE_READ,
    ],
)
def test_what_is_not_asked_for_is_not_taken(unwanted: int) -> None:
    agreed, _ = negotiate(init(init_body()), Settings())
    assert agreed is not None
    assert not agreed.flags & unwanted


def test_an_older_kernel_gets_what_it_has() -> None:
    old = ALL_FLAGS & ~(wire.FUSE_INIT_EXT | wire.FUSE_MAX_PAGES)
    agreed, answer = negotiate(init(init_body(7, 31, old)), Settings(flags=DEFAULT_FLAGS | wire.FUSE_POSIX_LOCKS))
    assert agreed is not None
    assert (agreed.minor, agreed.max_write_bytes) == (31, 128 * 1024)
    assert agreed.flags & wire.FUSE_POSIX_LOCKS
    assert not agreed.flags >> 32
    assert wire.fuse_init_out.unpack(answer)[6] == 128 * 1024


def test_a_time_for_requests_is_asked_for_with_its_flag() -> None:
    agreed, answer = negotiate(init(init_body(7, 45)), Settings(request_timeout_s=65_535))
    assert agreed is not None
    assert agreed.flags >> 42 & 1
    assert wire.fuse_init_out.unpack(answer)[-1] == 65_535
    older, _ = negotiate(init(init_body(7, 38, flags2=(1 << 10) - 1)), Settings(request_timeout_s=65_535))
    assert older is not None
    assert not older.flags >> 42


def test_a_future_major_version_is_asked_to_come_back() -> None:
    agreed, answer = negotiate(init(init_body(8, 0)), Settings())
    assert agreed is None
    assert wire.fuse_init_out.unpack(answer)[0] == 7


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 99)])
def test_a_kernel_that_is_too_old(major: int, minor: int) -> None:
    with pytest.raises(UnsupportedKernelError, match=rf"{major}\.{minor}"):
        negotiate(init(init_body(major, minor)), Settings())


def test_half_an_init() -> None:
    with pytest.raises(MalformedError):
        negotiate(init(init_body()[:30]), Settings())
