"""Prints the tables."""

from __future__ import annotations

from collections.abc import Sequence

from bench import binding_costs
from bench.binding_costs import Cost
from bench.machine import Facts
from bench.table import Memory, Row
from bench.two_mounts import Shares
from rich.console import Console
from rich.table import Table


def show_steps(console: Console, rows: Sequence[Row], memory: Sequence[Memory], facts: Facts, runs: int) -> None:
    """Show the steps at all places, with their processor time and memory."""
    places = [one.place for one in memory]
    table = Table(title=f"One folder on four servers, beside others (median of {runs}; a second, or seconds)")
    costs = Table(title="Processor seconds of the servers and the mount in these steps, and their memory")
    for each in (table, costs):
        each.add_column("step")
    table.add_column("unit", justify="right")
    for place in places:
        table.add_column(place, justify="right")
        costs.add_column(place, justify="right")
    for row in rows:
        table.add_row(row.step, row.unit, *(_number(row.medians.get(place)) for place in places))
        costs.add_row(row.step, *(_number(row.cpu_s.get(place)) for place in places))
    costs.add_section()
    costs.add_row("all of these, s", *(_number(sum(row.cpu_s.get(place, 0.0) for row in rows)) for place in places))
    costs.add_row("memory, MiB", *(_number(one.resident_mib) for one in memory))
    console.print(table)
    console.print(costs)
    cold = "dropped before cold steps" if facts["caches_dropped"] else "NOT dropped (needs root): cold is warm"
    console.print(
        f"{facts['processors']} processors, busy {facts['busy']:.0%}, stolen by other machines {facts['stolen']:.0%}, "
        f"load before {facts['load_before']}; caches {cold}.\nEvery byte is read back checked."
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show_costs(console: Console, costs: Sequence[Cost], runs: int) -> None:
    """Show the cost of the bindings alone."""
    table = Table(title=f"The bindings by themselves, over a no-op file system (median of {runs})")
    table.add_column("step")
    for heading in ("unit", *binding_costs.BINDINGS):
        table.add_column(heading, justify="right")
    for cost in costs:
        table.add_row(cost.step, cost.unit, *(f"{cost.per_second[binding]:,.0f}" for binding in binding_costs.BINDINGS))
    console.print(table)


def show_shares(console: Console, shares: Sequence[Shares]) -> None:
    """Show how two mounts share the servers."""
    table = Table(title="Two mounts that write without pause (each run)")
    table.add_column("shape")
    for heading in ("one alone /s", "both at once /s", "the slower one, of one alone"):
        table.add_column(heading, justify="right")
    for run in shares:
        both = " and ".join(f"{rate:,.0f}" for rate in run.both)
        table.add_row(run.shape, f"{run.alone:,.0f}", both, f"{run.least:.2f}")
    console.print(table)
