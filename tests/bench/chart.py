"""`make bench-chart`: the speed of each peer relative to dfsfuse, step by step, from a file of `make bench`.

One line for each step, one mark for each peer; marks left of the middle are slower than dfsfuse in the same run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import click  # noqa: E402
from bench.table import Row  # noqa: E402

OURS: Final = "dfsfuse"
LEFT_OUT: Final = ("plain", OURS)
MARKS: Final = {
    "MooseFS": ("o", "#0072b2"),
    "SeaweedFS": ("s", "#009e73"),
    "JuiceFS": ("^", "#d55e00"),
    "GlusterFS": ("D", "#cc79a7"),
    "sshfs": ("x", "#555555"),
}
"""Shapes, and colours that colour-blind readers can distinguish (Okabe and Ito's palette)."""


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("chart", type=click.Path(dir_okay=False, path_type=Path))
def main(results: Path, chart: Path) -> None:
    """Draw the medians of one run of the benchmark."""
    document = json.loads(results.read_text())
    draw([Row(**row) for row in document["medians"]], document["machine"], chart)


def draw(rows: list[Row], facts: dict[str, Any], chart: Path) -> None:
    """Write the chart as SVG."""
    import matplotlib as mpl
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "dfsfuse", "font.size": 9})
    rows = [row for row in rows if OURS in row.medians and len(row.medians) > 1]
    figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(rows) + 1.6), layout="constrained")
    for name, (mark, colour) in MARKS.items():
        found = [(row.ratio(name, OURS), -number) for number, row in enumerate(rows)]
        points = [(ratio, height) for ratio, height in found if ratio is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=mark, color=colour, label=name, zorder=3)
    axes.axvline(1, color="black", linewidth=1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_yticks([-number for number in range(len(rows))], [row.step for row in rows])
    axes.grid(visible=True, axis="both", color="#dddddd", linewidth=0.6)
    axes.set_xlabel(
        f"times as fast as dfsfuse, in the same run ({facts['processors']} processors, {facts['when'][:10]})"
    )
    axes.set_title("slower than dfsfuse  ◀   ▶  faster", fontsize=10)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(MARKS), frameon=False)
    figure.savefig(chart, format="svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
