"""One word for a file, and its segments by how their pieces lie."""

from __future__ import annotations

import pytest

from dfsfuse.cli.commands.listing import pieces_text
from dfsfuse.cli.health import Health, Layout, health_of
from dfsfuse.data.placement import ring


def copies(x: int, *, without: frozenset[int] = frozenset()) -> dict[int, frozenset[int]]:
    """A segment's copies on the ring of rotation x, less the servers that do not answer."""
    return {number: frozenset(homes) - without for number, homes in enumerate(ring(x), start=1)}


def test_a_whole_file_lies_as_in_the_missions_table() -> None:
    health = health_of([copies(0)])
    assert health == Health("complete", (Layout(1, {1: (1, 2), 2: (2, 3), 3: (3, 4), 4: (1, 4)}),))
    assert [pieces_text(pieces) for pieces in health.layouts[0].pieces.values()] == [
        "1,2",
        "2,3",
        "3,4",
        "4,1",
    ]


def test_segments_that_lie_alike_share_a_layout() -> None:
    health = health_of([copies(x % 4) for x in range(2, 12)])
    assert [layout.segments for layout in health.layouts] == [3, 3, 2, 2]
    assert health.layouts[0].pieces == {1: (3, 4), 2: (1, 4), 3: (1, 2), 4: (2, 3)}


@pytest.mark.parametrize(
    ("down", "state"),
    [
        ({1}, "degraded"),
        ({1, 3}, "degraded"),
        ({1, 2}, "incomplete"),
        ({1, 2, 3, 4}, "incomplete"),
        (set(), "complete"),
    ],
)
def test_the_word_is_that_of_the_worst_piece(down: set[int], state: str) -> None:
    assert health_of([copies(0, without=frozenset(down))]).state == state


def test_one_bad_segment_makes_a_bad_file_and_no_segment_none() -> None:
    assert health_of([copies(0), copies(1, without=frozenset({1, 4})), copies(2)]).state == "incomplete"
    assert health_of([]) == Health("complete")
    assert health_of([{}]).state == "incomplete"


def test_more_copies_than_two_are_complete_too() -> None:
    everywhere = {number: frozenset({1, 2, 3}) for number in range(1, 5)}
    assert health_of([everywhere]) == Health("complete", (Layout(1, dict.fromkeys((1, 2, 3), (1, 2, 3, 4))),))
    assert pieces_text((1, 2, 3, 4)) == "1,2,3,4"
    assert pieces_text(()) == "-"
