"""Where a backend is known to differ from the suite, and why. Each entry must fail: one that passes is an error too.

An entry is (backend, case) -> the reason, as docs and users need it. There are no skips besides the cases that need a
kernel, which the library alone does not have.
"""

from __future__ import annotations

DEVIATIONS: dict[tuple[str, str], str] = {}
