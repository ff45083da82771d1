"""Mounts that are broken on purpose: each breaks one promise of the lease, by one line that differs from what ships."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dfsfuse.errors import DfsError
from dfsfuse.log.lease import ANSWERS_S, Lease
from dfsfuse.log.state import News
from dfsfuse.namespace.map.cache import Changes, MapCache
from dfsfuse.namespace.map.committing import Committer
from dfsfuse.namespace.map.journal import Journal, PendingChange
from dfsfuse.namespace.map.losses import Losses, Witness
from dfsfuse.namespace.map.steps import Procedure, Settle


class AnswersTooLong(Lease):
    """Relies on the lease for longer than the servers give it."""

    def __init__(self) -> None:
        super().__init__(3 * ANSWERS_S)


class AnswersOn(Lease):
    """Goes on answering when its turn is spent, until it has released the lease."""

    def end_turn(self) -> None:
        pass

    def committed(self, begun: float, now: float, **facts: Any) -> None:
        super().committed(begun, now, **facts)
        if facts["leased"]:
            self._until = begun + ANSWERS_S


class NeverEndsItsTurn(Lease):
    """Ignores waiting clients."""

    def is_spent(self, now: float) -> bool:
        return False


class LetsGoFirst(Committer):
    """Releases the lease before it has committed what it answered."""

    def hand_over_if_spent(self) -> Procedure[None]:
        lease = self._state.lease
        if lease.is_spent(self._clock()):
            yield Settle()
            lease.released(self._clock())


class DoesNotCompare(Journal):
    """Proposes pending changes without checking what others did meanwhile."""

    def is_overtaken_by(self, news: News) -> bool:
        return False

    def is_overtaken(self) -> bool:
        return False


class ShowsWhatServersHave(Journal):
    """Does not lay pending changes over what is fetched."""

    def outcome(self) -> dict[bytes, bytes | None]:
        return {}


class TakesOldAnswers(MapCache):
    """Ignores what has changed since a server answered."""

    @contextmanager
    def watched(self) -> Iterator[Changes]:
        yield Changes()


class LosesInSilence(Journal):
    """Reports no losses."""

    def lose(self, failure: DfsError, sent: Sequence[PendingChange] | None = None) -> int:
        losses, self.losses = self.losses, Losses()
        count = super().lose(failure, sent)
        self.losses = losses
        return count


class _Repeats(Losses[DfsError]):
    def take(self, witness: Witness | None = None) -> DfsError | None:
        known = witness.known if witness is not None else 0
        found = super().take(witness)
        if witness is not None:
            witness.known = known
        return found


class TellsAgain(Journal):
    """Reports the same loss again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.losses = _Repeats()
