"""The timed work, on any folder. Every byte read is compared with what was written.

Each step returns how much it did and in how many seconds; it uses what earlier steps of its group have left on the
disk.
"""

from __future__ import annotations

from typing import Final

from bench.steps.content import Step
from bench.steps.degraded import DEGRADED_STEPS
from bench.steps.large import LARGE_STEPS
from bench.steps.small import SMALL_STEPS
from bench.steps.tree import TREE_STEPS

STEPS: Final[tuple[Step, ...]] = (*LARGE_STEPS, *SMALL_STEPS, *TREE_STEPS, *DEGRADED_STEPS)
