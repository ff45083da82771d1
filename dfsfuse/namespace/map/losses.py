"""Lost changes, reported once to each witness. Linux's `errseq`, in Python. Pure.

A program that has something open when a change is lost is told at its next fsync() or close(), whichever programs were
told before. One that opens something afterwards is told only if no program was told yet: changing a name, and opening
its folder to synchronise it, are one program's work.

The owner's lock guards it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Failure = TypeVar("Failure", bound=Exception)


class Witness:
    """An owner of something open, to which each loss is reported once."""

    __slots__ = ("known",)

    def __init__(self, known: int) -> None:
        self.known = known
        """How many losses there were when it was last told."""


class Losses(Generic[Failure]):
    """The number of losses, and the last one."""

    def __init__(self) -> None:
        self._count = 0
        self._last: Failure | None = None
        self._is_told = True

    def add(self, failure: Failure) -> None:
        """Record that something is lost, for this reason."""
        self._count += 1
        self._last = failure
        self._is_told = False

    def witness(self) -> Witness:
        """Return a new witness, to which losses are reported from now on, as well as a loss that was not reported
        yet."""
        return Witness(self._count if self._is_told else self._count - 1)

    def take(self, witness: Witness | None = None) -> Failure | None:
        """Return what must be reported to this witness, and mark it as reported; without one, what was not reported
        yet."""
        if self._is_told if witness is None else witness.known == self._count:
            return None
        self._is_told = True
        if witness is not None:
            witness.known = self._count
        return self._last
