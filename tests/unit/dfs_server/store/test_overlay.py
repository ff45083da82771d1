"""Batches that wait to reach the tables: in order, each as a whole, and the last change of a key counts."""

from __future__ import annotations

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.store.acceptor import ParsedBatch
from dfs_server.store.overlay import MAX_BATCHES, Overlay, WaitingBatch, WaitingPiece

S, T = b"s" * 16, b"t" * 16


def add(overlay: Overlay, **contents: object) -> ParsedBatch:
    batch = Batch(batches.FORMAT, b"", b"client", 1, 0, **contents)  # type: ignore[arg-type]
    parsed = ParsedBatch.of(batches.encode(batch))
    overlay.add(overlay.applied + 1, Ballot(1, b"client"), parsed, "DFS1", 10 * overlay.applied)
    return parsed


def test_the_last_change_of_a_key_counts() -> None:
    overlay = Overlay(7, 0)
    assert overlay.is_empty
    assert overlay.values([b"a"]) == (7, {})
    add(overlay, puts=((b"a", b"1"), (b"b", b"1"), (b"c", b"1")))
    add(overlay, puts=((b"a", b"2"), (b"d", b"put and gone")), deletes=(b"b", b"d"))
    assert not overlay.is_empty
    assert overlay.values([b"a", b"b", b"c", b"d", b"never"]) == (9, {b"a": b"2", b"b": None, b"c": b"1", b"d": None})
    assert overlay.items(b"a", b"c") == (9, [(b"a", b"2"), (b"b", None)])
    assert overlay.changes() == {b"a": b"2", b"b": None, b"c": b"1", b"d": None}


def test_it_has_the_batches_in_order_from_any_slot_on() -> None:
    overlay = Overlay(7, 0)
    parsed = [add(overlay, puts=((b"%d" % number, b""),)) for number in range(3)]
    for after in (0, 7, 8, 10):
        applied, found = overlay.batches(after)
        assert applied == 10
        expected = [
            WaitingBatch(8 + at, Ballot(1, b"client"), one.digest, one.encoded) for at, one in enumerate(parsed)
        ]
        assert found == expected[max(0, after - 7) :]


def test_it_has_this_servers_pieces_and_what_was_dropped_as_they_first_came() -> None:
    overlay = Overlay(7, 0)
    add(overlay, pieces=(InlinePiece(S, 1, ("DFS1", "DFS4"), b"one"), InlinePiece(S, 2, ("DFS2",), b"two")), drops=(T,))
    add(overlay, pieces=(InlinePiece(S, 1, ("DFS1",), b"again"),), drops=(T, S))
    assert (overlay.piece((S, 1)), overlay.piece((S, 2))) == (b"one", None)
    assert overlay.have([(S, 1), (S, 2), (T, 1)]) == {(S, 1)}
    assert overlay.pieces() == {(S, 1): WaitingPiece(b"one", 70)}
    assert overlay.drops() == {T: 70, S: 80}


def test_of_a_batch_that_may_not_be_chosen_only_the_pieces_count() -> None:
    overlay = Overlay(7, 0)
    batch = Batch(
        batches.FORMAT,
        b"",
        b"client",
        1,
        0,
        ((b"k", b"v"),),
        drops=(T,),
        pieces=(InlinePiece(S, 1, ("DFS1",), b"one"),),
    )
    overlay.add_pieces(batch, "DFS1", 70)
    assert overlay.pieces() == {(S, 1): WaitingPiece(b"one", 70)}
    assert (overlay.drops(), overlay.changes(), overlay.batches(0), overlay.is_empty) == ({}, {}, (7, []), True)


def test_it_is_full_after_so_many_batches() -> None:
    overlay = Overlay(0, 0)
    for _ in range(MAX_BATCHES):
        assert not overlay.is_full
        add(overlay)
    assert overlay.is_full
