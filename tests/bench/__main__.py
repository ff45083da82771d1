"""`python -m tests.bench` (make bench): see `bench.run`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]  # for the tests' helpers, and for dfsfuse if it is not installed


@click.command()
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1), help="How often; the median is shown.")
@click.option("--quick", is_flag=True, help="Less of everything, to see that it works.")
@click.option(
    "--only",
    default="",
    type=click.Choice(["large", "small", "tree", "degraded", "bindings", "two", ""]),
    help="Only the large file, small ones, a tree of sources, one server less, the bindings over a no-op file system, "
    "or two mounts.",
)
@click.option("--results", default=TESTS.parent / "bench-results", show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--peers", default="", metavar="NAMES", help="Others to measure beside it, by commas, or 'all' that are installed."
)
@click.option("--growth", is_flag=True, help="Instead: how cost grows with files, sizes and the log. No peers.")
@click.option("-o", "mount_options", multiple=True, metavar="OPTION", help="Passed on to dfsmount.")
def main(
    runs: int, quick: bool, only: str, results: Path, peers: str, growth: bool, mount_options: tuple[str, ...]
) -> None:
    """Measure a mount on four servers of its own beside a plain folder and other file systems on the same disk."""
    from bench import growth as growing
    from bench.peers import chosen
    from bench.run import Options, run
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    if growth:
        console.print(f"Everything is in [bold]{growing.measure(results, console, quick=quick)}[/bold]")
        return
    mounting = tuple(part for option in mount_options for part in ("-o", option))
    options = Options(runs, quick, only, results, mounting, tuple(chosen(peers, console)))
    console.print(f"Everything is in [bold]{run(options, console)}[/bold]")


if __name__ == "__main__":
    main()
