"""Slow, or gone: how long a server that owes an answer is waited for. Pure: times are passed in.

A connection that is refused, reset or closed, or on which not even the peer's kernel acknowledges anything (`GONE_S`,
asked of TCP by `dfsfuse.net.connection`), is *gone*: no deadline is needed to see that. What remains is silence on an
open connection, and it has two meanings:

- One or two servers are silent: they hang. They are given up after a short deadline, and the others carry on.
- So many are silent at once that nothing can be decided without them: the failure is not theirs, but of what they have
  in common. The machine or its disk stalls, or this process was stopped. Giving them up would lose what was answered
  and not committed yet, while a local disk would simply have made everyone wait. So they are *slow*, and waited for, at
  most for `SLOW_S`.

What counts is evidence of life: a server owes an answer since the request was begun, or since the last byte that moved
on its connection, whichever is later. Time in which this process did not run counts as no one's silence
(`stood_still_s`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TOGETHER: Final = 3
"""Number of servers whose simultaneous silence means that something common to them stalls: without them there is no
quorum, whatever the fourth one says."""
TOGETHER_S: Final = 1.0
"""How long a server must have been silent to be counted. Requests to several servers do not begin at the same moment:
a read asks one after the other."""
SLOW_S: Final = 30.0
"""At most this long are servers waited for that are silent together."""
LOOK_AGAIN_S: Final = 0.5
"""How often it is checked whether they still are."""
GONE_S: Final = 10.0
"""After this long without any sign of life from the peer's kernel TCP gives a connection up."""
LATE_S: Final = 0.5
"""A process that wakes up this much later than intended was not running meanwhile."""


def are_slow(owed_since: Mapping[int, float], now: float) -> bool:
    """Return whether servers that owe an answer are slow together, rather than gone. `owed_since`: for each server that
    does, since when nothing has come from it."""
    return sum(now - since >= TOGETHER_S for since in owed_since.values()) >= TOGETHER


def is_waited_for(silent_since: float, now: float) -> bool:
    """Return whether a server that is slow is waited for any longer."""
    return now - silent_since < SLOW_S


def stood_still_s(looked_at: float, due_at: float, now: float) -> float:
    """Return how long this process was not running: it last checked at `looked_at` and meant to check again at
    `due_at`. 0 if it was on time."""
    late_s = now - max(looked_at, due_at)
    return late_s if late_s > LATE_S else 0.0
