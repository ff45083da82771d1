"""What happens to a kept file: the table, row by row."""

from __future__ import annotations

import pytest

from dfsfuse.upkeep.recovery import plan
from dfsfuse.upkeep.recovery.manifest import KeptFile, Part
from dfsfuse.upkeep.recovery.plan import Action, Now

KNOWN, ANOTHER = b"known", b"another"


def kept(
    *, appended: bool = False, doubtful: bool = False, missing: int = 0, parts: int = 1, state: bytes | None = KNOWN
) -> KeptFile:
    return KeptFile(7, b"f", 900, appended, doubtful, tuple(Part(0, 5, 0, b"") for _ in range(parts)), missing, state)


def now(
    state: bytes | None = KNOWN, *, is_file: bool = True, has_grown: bool = False, holds: bool | None = None
) -> Now:
    def look() -> bool:
        assert holds is not None, "the file's contents need not be examined"
        return holds

    return Now(is_file, state, has_grown, look)


@pytest.mark.parametrize(
    ("file", "there", "action"),
    [
        (kept(), None, Action.BESIDE),
        (kept(), now(is_file=False), Action.BESIDE),
        (kept(), now(), Action.IN_PLACE),
        (kept(), now(ANOTHER, holds=False), Action.BESIDE),
        (kept(), now(ANOTHER, holds=True), Action.NOTHING),
        (kept(state=None), now(holds=False), Action.BESIDE),
        (kept(state=None), now(None, holds=False), Action.BESIDE),
        (kept(state=None), now(holds=True), Action.NOTHING),
        (kept(doubtful=True), now(), Action.IN_PLACE),
        (kept(doubtful=True), now(ANOTHER, holds=True), Action.NOTHING),
        (kept(doubtful=True), now(ANOTHER, holds=False), Action.BESIDE),
        (kept(missing=1), now(), Action.BESIDE),
        (kept(missing=1, parts=0), now(), Action.NOTHING),
        (kept(appended=True), None, Action.BESIDE),
        (kept(appended=True), now(is_file=False), Action.BESIDE),
        (kept(appended=True), now(), Action.AT_THE_END),
        (kept(appended=True), now(ANOTHER), Action.AT_THE_END),
        (kept(appended=True, state=None), now(), Action.AT_THE_END),
        (kept(appended=True, doubtful=True), now(), Action.AT_THE_END),
        (kept(appended=True, doubtful=True), now(ANOTHER, holds=True), Action.NOTHING),
        (kept(appended=True, doubtful=True), now(ANOTHER, holds=False), Action.BESIDE),
        (kept(appended=True, doubtful=True, state=None), now(holds=False), Action.BESIDE),
        (kept(appended=True, doubtful=True), now(has_grown=True, holds=True), Action.NOTHING),
        (kept(appended=True, doubtful=True), now(has_grown=True, holds=False), Action.BESIDE),
        (kept(appended=True), now(has_grown=True), Action.AT_THE_END),
        (kept(appended=True, missing=1), now(), Action.BESIDE),
    ],
)
def test_the_table(file: KeptFile, there: Now | None, action: Action) -> None:
    assert plan.decide(file, there) is action


def test_names_beside() -> None:
    written_ns = 1_796_043_214_000_000_000
    assert plan.name_beside(b"f.txt", written_ns) == b"f.txt [recovered 2026-11-30 12.53.34]"
    assert plan.name_beside(b"f", written_ns, 2) == b"f [recovered 2026-11-30 12.53.34 2]"
    for name in (b"x" * 255, "\N{SNOWMAN}".encode() * 85, b"\xff" * 255):
        made = plan.name_beside(name, written_ns, 10)
        assert len(made) <= 255 and made.endswith(b" [recovered 2026-11-30 12.53.34 10]")
    assert plan.name_beside("\N{SNOWMAN}".encode() * 85, written_ns).decode()
