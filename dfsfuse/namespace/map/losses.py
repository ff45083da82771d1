"""Soft promises that were broken: reported once to each who was there. Linux' `errseq`, in Python. Pure.

A program that has something open when a change is lost is told at its next fsync() or close(), whoever else was told
before. One that opens something afterwards is told only if nobody has been told yet: a name that was changed, and a
folder that is opened to be synchronised, are one program's work.

The owner's lock guards it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Failure = TypeVar("Failure", bound=Exception)


class Witness:
    """Someone who is told of each loss once."""

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
        """Return a new witness, who relies on things from now on. Losses that nobody was told of are told to him
        too."""
        return Witness(self._count if self._is_told else self._count - 1)

    def take(self, witness: Witness | None = None) -> Failure | None:
        """Return what must be told to this witness, who then knows it; without one, what nobody was told of."""
        if self._is_told if witness is None else witness.known == self._count:
            return None
        self._is_told = True
        if witness is not None:
            witness.known = self._count
        return self._last
