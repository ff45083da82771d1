"""Changes that were answered and then lost: each is reported once to every witness. Linux' `errseq`, in Python. Pure.

A program that has something open when a change is lost gets an error at its next fsync() or close(), whether or not it
was reported to others before. One that opens something afterwards gets it only if it was not reported to anyone yet: a
program that changes a name, and then opens the folder to synchronise it, must learn of the loss.

The owner's lock guards it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Failure = TypeVar("Failure", bound=Exception)


class Witness:
    """An open file or folder, to which each loss is reported once."""

    __slots__ = ("known",)

    def __init__(self, known: int) -> None:
        self.known = known
        """How many losses there were when one was last reported to it."""


class Losses(Generic[Failure]):
    """The number of losses, and the last one."""

    def __init__(self) -> None:
        self._count = 0
        self._last: Failure | None = None
        self._is_reported = True

    def add(self, failure: Failure) -> None:
        """Record that something is lost, for this reason."""
        self._count += 1
        self._last = failure
        self._is_reported = False

    def witness(self) -> Witness:
        """Return a new witness, for losses from now on; and for the last one before, if it was not reported yet."""
        return Witness(self._count if self._is_reported else self._count - 1)

    def take(self, witness: Witness | None = None) -> Failure | None:
        """Return what must be reported to this witness now; without a witness, what was not reported to anyone."""
        if self._is_reported if witness is None else witness.known == self._count:
            return None
        self._is_reported = True
        if witness is not None:
            witness.known = self._count
        return self._last
