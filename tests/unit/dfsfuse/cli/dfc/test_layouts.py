"""A file's segments, grouped by where their pieces are."""

from __future__ import annotations

from dfsfuse.cli.dfc.layouts import Layout, layouts_of, pieces_text
from dfsfuse.data.placement import ring


def copies(x: int, *, without: frozenset[int] = frozenset()) -> dict[int, frozenset[int]]:
    """A segment's copies on the ring with rotation x, without the servers that do not answer."""
    return {number: frozenset(homes) - without for number, homes in enumerate(ring(x), start=1)}


def test_a_whole_file_lies_as_in_the_missions_table() -> None:
    (layout,) = layouts_of([copies(0)])
    assert layout == Layout(1, {1: (1, 2), 2: (2, 3), 3: (3, 4), 4: (1, 4)})
    assert [pieces_text(pieces) for pieces in layout.pieces.values()] == ["1,2", "2,3", "3,4", "4,1"]


def test_segments_that_lie_alike_share_a_layout() -> None:
    layouts = layouts_of([copies(x % 4) for x in range(2, 12)])
    assert [layout.segments for layout in layouts] == [3, 3, 2, 2]
    assert layouts[0].pieces == {1: (3, 4), 2: (1, 4), 3: (1, 2), 4: (2, 3)}


def test_servers_that_do_not_answer_hold_nothing() -> None:
    (layout,) = layouts_of([copies(0, without=frozenset({1, 2}))])
    assert layout.pieces == {3: (3, 4), 4: (1, 4)}
    assert layouts_of([{}]) == [Layout(1, {})]
    assert layouts_of([]) == []


def test_any_set_of_pieces_has_a_text() -> None:
    assert pieces_text((1, 2, 3, 4)) == "1,2,3,4"
    assert pieces_text(()) == "-"
