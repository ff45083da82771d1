"""`python -m tests.bench` (make bench): see `bench.run`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]  # the helpers of the tests, and dfsfuse if it is not installed


@click.command()
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1), help="How often; the median is shown.")
@click.option("--quick", is_flag=True, help="Less of everything, to see that it works.")
@click.option(
    "--only",
    default="",
    type=click.Choice(["large", "small", "bindings", "two", ""]),
    help="Only the large file, small ones, the bindings over a no-op file system, or two mounts.",
)
@click.option("--results", default=TESTS.parent / "bench-results", show_default=True, type=click.Path(path_type=Path))
@click.option("-o", "mount_options", multiple=True, metavar="OPTION", help="Passed on to dfsmount.")
def main(runs: int, quick: bool, only: str, results: Path, mount_options: tuple[str, ...]) -> None:
    """Measure a mount on four servers of its own beside a plain folder on the same disk."""
    from bench.run import Options, run
    from rich.console import Console

    console = Console()
    options = Options(runs, quick, only, results, tuple(part for option in mount_options for part in ("-o", option)))
    console.print(f"Everything is in [bold]{run(options, console)}[/bold]")


if __name__ == "__main__":
    main()
