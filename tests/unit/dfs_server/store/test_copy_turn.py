"""A copy that makes progress is left alone; one that has stalled may be replaced."""

from __future__ import annotations

from dfs_server.store.copy_turn import COPY_RESTS_S, NOBODY, CopyTurn


def test_any_copy_may_begin_if_none_is_running() -> None:
    assert NOBODY.may_begin(b"one", 0.0)


def test_another_copy_waits_until_the_first_one_has_stood_still() -> None:
    turn = CopyTurn(b"one", 10.0)
    assert not turn.may_begin(b"two", 10.0)
    assert not turn.may_begin(b"two", 10.0 + COPY_RESTS_S - 0.1)
    assert turn.may_begin(b"two", 10.0 + COPY_RESTS_S)


def test_the_same_copy_may_begin_again() -> None:
    assert CopyTurn(b"one", 10.0).may_begin(b"one", 10.0)
