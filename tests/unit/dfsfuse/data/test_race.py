"""Which server is tried next: every rule of the race, and that it always ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfsfuse.data.race import Attempt, Race


def take_all(race: Race, now: float = 0.0) -> list[Attempt]:
    taken = []
    while (attempt := race.take(now)) is not None:
        taken.append(attempt)
    return taken


def test_a_download_asks_the_first_source_of_each_piece() -> None:
    race = Race({1: (1, 4), 2: (2, 1)}, need=1, patience_s=0.3)
    assert take_all(race) == [Attempt(1, 1), Attempt(2, 2)]
    race.won(Attempt(1, 1), 0.1)
    assert not race.done()
    assert race.won(Attempt(2, 2), 0.2) == 0.2
    assert race.done()
    assert race.winners(1) == (1,)


def test_an_upload_tries_two_servers_for_each_piece() -> None:
    race = Race({1: (1, 4, 2, 3)}, need=2, patience_s=0.7)
    assert take_all(race) == [Attempt(1, 1), Attempt(1, 4)]
    race.won(Attempt(1, 4), 0.1)
    assert not race.done()
    race.won(Attempt(1, 1), 0.2)
    assert race.done()
    assert race.winners(1) == (1, 4), "winners are in order of preference, not of arrival"


def test_a_failure_brings_the_next_in_line() -> None:
    race = Race({1: (1, 4, 2)}, need=1, patience_s=0.3)
    take_all(race)
    race.lost(Attempt(1, 1), out=False)
    assert take_all(race) == [Attempt(1, 4)]
    assert race.hopeless() is None
    race.lost(Attempt(1, 4), out=False)
    race.lost(take_all(race)[0], out=False)
    assert take_all(race) == []
    assert race.hopeless() == 1


def test_a_server_that_is_out_is_tried_for_nothing_else() -> None:
    race = Race({1: (1, 2), 2: (2, 1)}, need=1, patience_s=0.3)
    take_all(race)
    race.lost(Attempt(1, 1), out=True)
    race.lost(Attempt(2, 2), out=False)
    assert take_all(race) == [Attempt(1, 2)]
    assert race.hopeless() == 2


def test_a_laggard_gets_company_but_may_still_win() -> None:
    race = Race({1: (1, 4)}, need=1, patience_s=0.3)
    take_all(race, 0.0)
    assert race.wake_in_s(0.1) == 0.3 - 0.1
    assert take_all(race, 0.2) == []
    assert take_all(race, 0.3) == [Attempt(1, 4)]
    assert race.laggards(0.3) == {1}
    assert sorted(race.pending()) == [Attempt(1, 1), Attempt(1, 4)]
    race.won(Attempt(1, 1), 0.4)
    assert race.done()


def test_no_server_lags_while_no_other_has_succeeded() -> None:
    race = Race({1: (1, 4, 2), 2: (2, 3, 1)}, need=1, patience_s=0.7, others_first=1)
    take_all(race)
    assert take_all(race, 5.0) == []
    race.won(Attempt(2, 2), 5.0)
    assert race.laggards(5.0) == frozenset()
    assert take_all(race, 5.0) == [], "a server as slow as the other is not a laggard"
    assert race.wake_in_s(5.0) == 10.0
    assert take_all(race, 15.0) == [Attempt(1, 4)]


def test_hedges_go_to_prompt_servers_only() -> None:
    race = Race({1: (1, 2), 2: (2, 1)}, need=1, patience_s=0.3)
    take_all(race)
    assert take_all(race, 1.0) == [], "both lag: asking them more would not help"
    race.lost(Attempt(1, 1), out=False)
    assert race.take(1.0) == Attempt(1, 2), "but a lost attempt is always replaced"


def test_with_all_lagging_there_is_nothing_to_wake_for() -> None:
    race = Race({1: (1,)}, need=1, patience_s=0.3)
    take_all(race)
    assert race.wake_in_s(1.0) is None


@given(
    need=st.integers(1, 2),
    choices=st.lists(st.tuples(st.integers(0, 15), st.sampled_from(["win", "lose", "out", "wait"])), max_size=60),
    orders=st.lists(st.permutations([1, 2, 3, 4]), min_size=1, max_size=4),
)
def test_every_race_ends(need: int, choices: list[tuple[int, str]], orders: list[list[int]]) -> None:
    race = Race(dict(enumerate(orders, start=1)), need=need, patience_s=0.3)
    now, started = 0.0, []
    for index, what in [*choices, *((0, "lose") for _ in range(17))]:
        started += take_all(race, now)
        pending = race.pending()
        if race.done() or race.hopeless() is not None:
            break
        assert pending, "stuck: neither done nor hopeless, and nothing in progress"
        attempt = pending[index % len(pending)]
        if what == "wait":
            now += 0.2
        elif what == "win":
            race.won(attempt, now)
        else:
            race.lost(attempt, out=what == "out")
    assert len(started) == len(set(started)) <= 16
    assert race.done() or race.hopeless() is not None
    if race.done():
        assert all(len(set(race.winners(number))) == need for number in range(1, len(orders) + 1))
