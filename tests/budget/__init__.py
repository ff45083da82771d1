"""Budget tests: the cost of each operation, as numbers that do not depend on the machine and must not grow unnoticed.

`operations` defines the work and `rig` the system under it; `counting` counts in a separate process, and `table.md` has
the numbers.
"""
