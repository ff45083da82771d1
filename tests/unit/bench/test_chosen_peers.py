"""Which other file systems the benchmark measures."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import ClassVar

import bench.peers
import click
import pytest
from bench.peers import PEERS, Peer, chosen
from rich.console import Console

Choose = Callable[[str], tuple[list[str], str]]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Choose peers on a machine where all but the first are installed."""

    class Absent(PEERS[0]):  # type: ignore[misc, valid-type]
        programs: ClassVar[tuple[str, ...]] = ("no-such-program",)

    class Present(PEERS[1]):  # type: ignore[misc, valid-type]
        programs: ClassVar[tuple[str, ...]] = ("sh",)

    kinds: list[type[Peer]] = [Absent, Present]
    monkeypatch.setattr(bench.peers, "PEERS", kinds)
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def choose(names: str) -> tuple[list[str], str]:
        said = io.StringIO()
        return [peer.name for peer in chosen(names, Console(file=said, width=200))], said.getvalue()

    return choose


def test_all_are_those_that_are_installed_and_the_others_are_named(choose: Choose) -> None:
    names, said = choose("all")
    assert names == ["SeaweedFS"]
    assert "MooseFS is left out: not installed: no-such-program ('make bench-peers' installs them)" in said


def test_without_a_name_there_is_none(choose: Choose) -> None:
    assert choose("") == ([], "")


def test_one_that_was_named_must_be_installed(choose: Choose) -> None:
    with pytest.raises(click.BadParameter, match="moosefs: not installed"):
        choose("moosefs, seaweedfs")


def test_an_unknown_name_is_refused(choose: Choose) -> None:
    with pytest.raises(click.BadParameter, match="'cephfs' is none of moosefs, seaweedfs"):
        choose("cephfs")


def test_peers_need_root(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert choose("all")[0] == []
