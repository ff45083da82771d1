"""What a mount's log reports about servers."""

from __future__ import annotations

import pytest

from .field import missed

GONE = "DFS2 (10.201.3.2:10001) does not answer: it has closed the connection; trying again in the background\n"
BACK = "DFS2 (10.201.3.2:10001) answers again\n"
OTHER = "DFS3 (10.201.3.6:10001) does not answer: nothing came for 3.0 s; trying again in the background\n"


@pytest.mark.parametrize(
    ("log", "servers"),
    [
        ("", set()),
        (GONE, {"DFS2"}),
        (GONE + BACK, set()),
        (GONE + OTHER + BACK, {"DFS3"}),
        (GONE + BACK + GONE, {"DFS2"}),
        ("DFS2 (10.201.3.2:10001) is full: data goes to others\n", set()),
    ],
)
def test_the_servers_that_a_mount_misses_are_in_its_log(log: str, servers: set[str]) -> None:
    assert missed(log) == servers
