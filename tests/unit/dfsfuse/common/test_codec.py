"""Records survive encoding, and bytes that are not a record are refused, or not found."""

from __future__ import annotations

import contextlib
import errno

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfsfuse.common import codec
from dfsfuse.common.codec import Codec


class Thing(msgspec.Struct, frozen=True, array_like=True):
    """A record with a field that older ones do not have."""

    format: int
    name: str
    added: int = 5


THINGS = Codec(Thing, "a thing", 1)


def test_a_record_comes_back_as_it_was_and_an_older_one_with_defaults() -> None:
    assert (
        THINGS.decode(codec.encode(Thing(1, "a", 2))) == THINGS.find(codec.encode(Thing(1, "a", 2))) == Thing(1, "a", 2)
    )
    assert THINGS.decode(msgspec.msgpack.encode([1, "a"])) == Thing(1, "a")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated"),
        (b"\xc1", "malformed"),
        (b"\x92\x01" + b"\x91" * 5000, "Expected `str`"),
        (b"\x92\x01\xa1\xff", "Invalid UTF-8"),
        (msgspec.msgpack.encode([2, "a"]), "format 2; this program knows format 1"),
        (msgspec.msgpack.encode([2, 7]), "format 2; this program knows format 1"),
        (msgspec.msgpack.encode([1, 7]), "Expected `str`"),
    ],
)
def test_what_is_no_record_of_this_format_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(OSError, match=f"cannot read the record of a thing: .*{why}") as caught:
        THINGS.decode(data)
    assert caught.value.errno == errno.EIO
    assert THINGS.find(data) is THINGS.find(None) is None


@given(st.binary(max_size=60))
def test_whatever_the_bytes_there_is_a_record_or_an_io_error(data: bytes) -> None:
    with contextlib.suppress(OSError):
        assert THINGS.decode(data).format == 1
