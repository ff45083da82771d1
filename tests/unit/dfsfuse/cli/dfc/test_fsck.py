"""What `dfc fsck` says about servers whose maps differ: it never gives advice that would lose what one server alone
has."""

from __future__ import annotations

import pytest

from dfsfuse.cli.dfc.commands.fsck import difference, missing, summary, unreachable
from dfsfuse.data.extents import Segment
from dfsfuse.upkeep.fsck.data import Placed
from dfsfuse.upkeep.fsck.pieces import Lack, Pieces
from dfsfuse.upkeep.fsck.run import Checked
from dfsfuse.upkeep.fsck.snapshot import Comparison
from dfsfuse.upkeep.sweep.sessions import Remains

NAMES = {number: f"DFS{number}" for number in (1, 2, 3, 4)}


def test_one_against_three_is_named_with_what_to_do() -> None:
    said = difference(b"k", frozenset({3}), frozenset({1, 2, 3, 4}), NAMES)
    assert "the map of DFS3 differs from that of the three others at key 6b: stop DFS3" in said


@pytest.mark.parametrize(
    ("servers", "compared"), [({1, 2}, {1, 2, 3, 4}), ({2, 4}, {1, 2, 3, 4}), ({1}, {1, 2}), ({1}, {1, 2, 3})]
)
def test_without_three_that_say_the_same_no_server_is_to_be_emptied(servers: set[int], compared: set[int]) -> None:
    said = difference(b"k", frozenset(servers), frozenset(compared), NAMES)
    assert all(NAMES[server] in said for server in servers)
    assert "do not empty any of them" in said
    assert "stop" not in said


def test_what_mounts_that_died_have_left_is_said_and_is_nothing_that_is_wrong() -> None:
    checked = Checked(remains=Remains((b"s/x",), 2))
    assert summary(checked) == [
        "1 session and 2 locks of mounts that died are left: --repair removes them, and so do mounts, within a day."
    ]
    assert checked.is_sound
    checked.are_ended = True
    assert summary(checked) == ["1 session and 2 locks of mounts that died were removed."]
    checked = Checked(remains=Remains((), 1))
    checked.comparison = Comparison(frozenset({1, 2, 3, 4}), {}, {b"k": frozenset({1})})
    assert summary(checked) == ["0 sessions and 1 lock of mounts that died are left: mounts remove them, within a day."]


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("DFS2 (10.0.0.2:7700): a row is damaged; others can tell", "a row is damaged; others can tell"),
        ("DFS2 ([::1]:7700) does not answer: connection refused", "it does not answer: connection refused"),
        ("does not answer", "it does not answer"),
        ("DFS20 (10.0.0.2:7700): it is another one", "DFS20 (10.0.0.2:7700): it is another one"),
    ],
)
def test_a_server_that_was_not_checked_is_named_once(why: str, said: str) -> None:
    checked = Checked()
    checked.comparison = Comparison(frozenset({1, 3, 4}), {2: why}, {})
    assert unreachable(checked, NAMES) == {"DFS2": said}


def test_missing_copies_are_told_by_file_and_server_and_summed_up() -> None:
    def lack(ino: int, server: int, *, is_last: bool = False) -> Lack:
        segment = Segment(b"s" * 16, 4, ((1, 2), (2, 3), (3, 4), (4, 1)), (b"d" * 32,) * 4)
        return Lack(Placed(ino, 0, segment, None), 1, server, is_last)

    checked = Checked(path=lambda ino: b"/f%02d" % ino)
    checked.pieces = Pieces(lacks=[lack(1, 2), lack(1, 2), lack(1, 3, is_last=True), lack(2, 4)])
    assert missing(checked, NAMES) == [
        "/f01: copies of its data are missing on DFS2 and DFS3; some of it is on no server that answers",
        "/f02: copies of its data are missing on DFS4",
    ]
    assert summary(checked) == ["4 copies of data are missing: 'dfc heal' makes them."]
    checked.pieces = Pieces(lacks=[lack(ino, 2) for ino in range(30)])
    assert len(missing(checked, NAMES)) == 21
    assert missing(checked, NAMES)[-1] == "Copies of data of 10 more files are missing: --json names all of them."
