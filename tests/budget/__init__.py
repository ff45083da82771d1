"""Budget tests: what each operation costs, as numbers that do not depend on the machine, and may not grow unnoticed.

`operations` says what is done, `rig` on what, `counting` counts it in a process of its own, `table.md` has the numbers.
"""
