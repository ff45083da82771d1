"""A page of a range, and with it the items that its values name, as of the same slot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.store_proposer import StoreProposer

from dfs_server.protocol.joins import MAX_JOINED, joined_key
from dfs_server.protocol.messages import Items, ReadRange
from dfs_server.store.overlay import Overlay
from dfs_server.store.store import NamespaceStore


def name(number: int) -> bytes:
    return b"d/%05d" % number


def value(number: int) -> bytes:
    return msgspec.msgpack.encode([1, number, 0o100000])


def target(number: int) -> bytes:
    return b"i/" + number.to_bytes(8, "big")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[StoreProposer]:
    with closing(NamespaceStore(tmp_path / "alice", "DFS1")) as store:
        yield StoreProposer(store)


def page(writer: StoreProposer, *, join_key: bytes = b"", limit: int = 9999) -> Items:
    reply = writer.store.handle(ReadRange(writer.slot, writer.digest, b"d/", b"d0", limit, b"i/", join_key))
    assert isinstance(reply, Items), reply
    return reply


def test_a_page_brings_what_its_items_name_whether_it_is_in_the_tables_or_waits(writer: StoreProposer) -> None:
    writer.commit(*((name(number), value(number)) for number in range(5)), (target(1), b"old"), (target(2), b"two"))
    writer.commit()
    writer.store.flush()
    writer.commit((target(1), b"new"), (target(3), b"three"), deletes=(target(2),))
    for _ in range(2):
        found = page(writer)
        assert found.joined == ((target(1), b"new"), (target(3), b"three")), "the others do not exist"
        assert [key for key, _ in found.items] == [name(number) for number in range(5)]
        assert page(writer, limit=2).joined == ((target(1), b"new"),)
        assert page(writer, join_key=name(3)).joined == ((target(3), b"three"),)
        assert page(writer, join_key=name(9)).joined == page(writer, join_key=name(0)).joined == ()
        writer.commit()
        writer.store.flush()


def test_no_more_comes_along_than_is_looked_up_in_a_moment_and_fits(writer: StoreProposer) -> None:
    writer.commit(*((name(number), value(number)) for number in range(MAX_JOINED + 5)))
    writer.commit(*((target(number), b"v") for number in range(MAX_JOINED + 5)))
    found = page(writer)
    assert len(found.items) == len(found.joined) + 5 == MAX_JOINED + 5
    writer.commit(*((target(number), bytes(450_000)) for number in range(4)))
    writer.commit((target(4), bytes(1_500_000)))
    assert [key for key, _ in page(writer).joined] == [target(number) for number in range(4)]


def test_what_has_changed_since_the_page_was_read_does_not_come_along(
    writer: StoreProposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.commit((name(1), value(1)), (target(1), b"old"))
    writer.choose()
    look_up = Overlay.values

    def commit_first(overlay: Overlay, *keys: Any) -> Any:
        monkeypatch.undo()
        writer.commit((target(1), b"new"))
        writer.choose()
        return look_up(overlay, *keys)

    monkeypatch.setattr(Overlay, "values", commit_first)
    found = page(writer)
    assert (found.applied, found.joined) == (1, ())
    assert page(writer).joined == ((target(1), b"new"),)


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", b"\x01", msgspec.msgpack.encode([1]), msgspec.msgpack.encode([1, -1]), b"\x91" * 5000]
)
def test_a_value_of_another_form_names_nothing(writer: StoreProposer, value: bytes) -> None:
    assert joined_key(b"i/", value) is None
    writer.commit((name(1), value))
    assert page(writer).joined == ()


class OldReadRange(msgspec.Struct, frozen=True, array_like=True, tag="ReadRange"):
    """As in version 0.1.0."""

    slot: int
    digest: bytes
    start: bytes
    end: bytes
    limit: int


class OldItems(msgspec.Struct, frozen=True, array_like=True, tag="Items"):
    """As in version 0.1.0."""

    applied: int
    items: tuple[tuple[bytes, bytes], ...]
    more: bool


def test_older_servers_and_clients_understand_what_they_know() -> None:
    new = ReadRange(7, b"d", b"a", b"b", 9, b"i/", b"a1")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=OldReadRange) == OldReadRange(
        7, b"d", b"a", b"b", 9
    )
    old = msgspec.msgpack.encode(OldReadRange(7, b"d", b"a", b"b", 9))
    assert msgspec.msgpack.decode(old, type=ReadRange) == ReadRange(7, b"d", b"a", b"b", 9)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Items(7, (), False)), type=OldItems) == OldItems(7, (), False)
    answer = msgspec.msgpack.encode(OldItems(7, ((b"a1", b"v"),), True))
    assert msgspec.msgpack.decode(answer, type=Items) == Items(7, ((b"a1", b"v"),), True, ())
