"""`make budget`: measures the table, and shows how it differs from the stored one. WRITE=1 stores it.

It is stored in `table.md`, and between the marks in docs/benchmarks.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from .cost import Line, format_table, parse_table
from .measured import PAGE, TABLE, measure

BEGIN = "<!-- budget: make budget WRITE=1 -->\n"
END = "<!-- end of budget -->\n"


def differences(found: Mapping[str, Line], allowed: Mapping[str, Line]) -> list[str]:
    """Return a sentence for each difference between what was measured and what is allowed."""
    told = [f"{name}: it is not in the table" for name in found if name not in allowed]
    told += [f"{name}: it is in the table and is not measured" for name in allowed if name not in found]
    for name in found.keys() & allowed.keys():
        told += [f"{name}: {what}" for what in found[name].differences(allowed[name])]
    return sorted(told)


def main() -> int:
    """See the module."""
    measured = measure()
    table = format_table(measured.lines.values())
    print(table)
    for name, notes in measured.notes.items():
        if notes:
            print(f"{name}: {notes}")
    if os.environ.get("WRITE"):
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2])
        TABLE.write_text(table)
        return 0
    told = differences(measured.lines, parse_table(TABLE.read_text()))
    print("\n".join(["", *told]) if told else "\nAs it is written down.")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
