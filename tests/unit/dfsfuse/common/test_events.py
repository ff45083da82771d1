"""What happens while nobody listens."""

from __future__ import annotations

import dataclasses

from dfsfuse.common.events import Changed, Events


def test_nobody_has_to_listen() -> None:
    events = Events()
    events.on_servers_changed()
    events.on_keys_changed([b"key"])
    events.on_files_changed([Changed(7)])
    answered: list[int] = []
    events.on_lock_granted(7, lambda: answered.append(7))
    assert answered == [7], "a lock that nothing is cached for is answered at once"


def test_who_listens_to_one_client_hears_nothing_of_another() -> None:
    one, other = Events(), Events()
    heard: list[object] = []

    def hear(*what: object) -> None:
        heard.append(what)

    for event in dataclasses.fields(Events):
        setattr(one, event.name, hear)
    other.on_servers_changed()
    other.on_keys_changed(None)
    other.on_files_changed(None)
    other.on_lock_granted(7, lambda: None)
    assert heard == []
    one.on_keys_changed(None)
    assert heard == [(None,)]
