"""The progress bar appears where it helps, and nowhere else."""

from __future__ import annotations

from support.clock import Clock

from dfsfuse.cli.dfc.progress import WORTH_BYTES, Bar


def test_no_bar_in_a_pipe() -> None:
    with Bar(terminal=lambda: False, clock=Clock()) as bar:
        bar.start(b"big", 100 * WORTH_BYTES)
        bar.advance(WORTH_BYTES)
        assert not bar.visible


def test_no_bar_for_what_is_small_and_quick() -> None:
    with Bar(terminal=lambda: True, clock=Clock()) as bar:
        bar.start(b"small", 100)
        bar.advance(100)
        assert not bar.visible


def test_a_bar_for_what_is_large() -> None:
    with Bar(terminal=lambda: True, clock=Clock()) as bar:
        bar.start(b"large \x1b[0m [red]name", WORTH_BYTES + 1)
        assert bar.visible
        bar.advance(WORTH_BYTES)
        bar.start(b"next", 5)
        bar.advance(5)
    assert not bar.visible


def test_a_bar_for_what_takes_long_and_for_streams_of_unknown_size() -> None:
    clock = Clock()
    with Bar(terminal=lambda: True, clock=clock) as bar:
        bar.start(b"slow", 10)
        clock.now += 1.5
        bar.advance(1)
        assert bar.visible
    with Bar(terminal=lambda: True, clock=Clock()) as bar:
        bar.start(b"stream", None)
        bar.advance(WORTH_BYTES + 1)
        assert bar.visible
