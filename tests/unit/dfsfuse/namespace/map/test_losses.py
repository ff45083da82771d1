"""Which losses are reported to which witness, and how often: the rules of Linux's errseq."""

from __future__ import annotations

from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.map.losses import Losses

FIRST, SECOND = UnavailableError("first"), UnavailableError("second")


def test_each_witness_is_told_once() -> None:
    losses: Losses[UnavailableError] = Losses()
    one, other = losses.witness(), losses.witness()
    assert losses.take(one) is None
    losses.add(FIRST)
    assert losses.take(one) is FIRST
    assert losses.take(one) is None
    assert losses.take(other) is FIRST
    assert losses.take(other) is None


def test_a_later_witness_is_told_only_what_was_not_reported_yet() -> None:
    losses: Losses[UnavailableError] = Losses()
    losses.add(FIRST)
    late = losses.witness()
    assert losses.take(late) is FIRST
    later = losses.witness()
    assert losses.take(later) is None
    losses.add(SECOND)
    assert losses.take(later) is SECOND
    assert losses.take(late) is SECOND


def test_of_several_losses_the_last_one_is_told() -> None:
    losses: Losses[UnavailableError] = Losses()
    one = losses.witness()
    losses.add(FIRST)
    losses.add(SECOND)
    late = losses.witness()
    assert losses.take(one) is SECOND
    assert losses.take(one) is None
    assert losses.take(late) is SECOND  # it came before the loss was reported to anyone


def test_without_a_witness_what_was_not_reported_yet_is_told() -> None:
    losses: Losses[UnavailableError] = Losses()
    one = losses.witness()
    assert losses.take() is None
    losses.add(FIRST)
    assert losses.take() is FIRST
    assert losses.take() is None
    assert losses.take(one) is FIRST
    losses.add(SECOND)
    assert losses.take(one) is SECOND
    assert losses.take() is None
