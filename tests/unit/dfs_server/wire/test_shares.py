"""Shares: each user has a limit on connections and on bytes of large messages, and other users are not affected."""

from __future__ import annotations

import threading

import pytest

from dfs_server.wire.shares import SMALL_BYTES, Share, Shares, TooBusyError


def test_a_user_has_so_many_connections_and_others_have_theirs() -> None:
    shares = Shares(max_connections=2)
    with shares.take("alice"), shares.take("alice"):
        with pytest.raises(TooBusyError, match="user alice has 2 connections"), shares.take("alice"):
            pass
        with shares.take("bob"):
            pass
    with shares.take("alice"), shares.take("alice"):
        pass


def test_connections_of_a_user_share_one_share() -> None:
    shares = Shares(max_connections=2)
    with shares.take("alice") as first, shares.take("alice") as second, shares.take("bob") as other:
        assert first is second
        assert first is not other


def test_what_is_held_is_waited_for_and_given_back() -> None:
    share = Share(total_bytes=10 * SMALL_BYTES, wait_s=0.01)
    with share.hold(8 * SMALL_BYTES):
        with share.hold(SMALL_BYTES):
            pass
        with pytest.raises(TooBusyError), share.hold(3 * SMALL_BYTES):
            pass
        with share.hold(2 * SMALL_BYTES), share.hold(SMALL_BYTES):
            pass
    with share.hold(10 * SMALL_BYTES):
        pass


def test_a_waiter_goes_on_when_there_is_room() -> None:
    share = Share(total_bytes=10 * SMALL_BYTES, wait_s=10)
    got = threading.Event()

    def want() -> None:
        with share.hold(5 * SMALL_BYTES):
            got.set()

    thread = threading.Thread(target=want)
    with share.hold(8 * SMALL_BYTES):
        thread.start()
    thread.join(10)
    assert got.is_set()


def test_room_is_given_back_after_an_error() -> None:
    share = Share(total_bytes=2 * SMALL_BYTES, wait_s=0.01)
    with pytest.raises(ValueError, match="oops"), share.hold(2 * SMALL_BYTES):
        raise ValueError("oops")
    with share.hold(2 * SMALL_BYTES):
        pass
