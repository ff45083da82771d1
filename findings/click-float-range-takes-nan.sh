#!/bin/bash
# click 8.5.1: click.FloatRange(min=0, max=1) accepts "nan", though NaN is in no range: it is neither smaller than one bound nor larger
# than the other. A program that takes a rate or a number of seconds with such an option has to ask math.isfinite() itself, or
# fails later, far from the command line, where it computes with the number.
#
# Output seen:
#   0.5: accepted as 0.5
#   2: refused
#   inf: refused
#   nan: accepted as nan
# Needs a network that reaches the package registry.
. "$(dirname "$0")/lib.sh"
venv click==8.5.1
cat >"$work/program.py" <<'PY'
import click

@click.command()
@click.option("--rate", type=click.FloatRange(min=0, max=1))
def program(rate: float) -> None:
    print(f"accepted as {rate}")

program()
PY
seen=""
for value in 0.5 2 inf nan; do
    answer=$("$work/venv/bin/python" "$work/program.py" --rate "$value" 2>/dev/null) || answer=refused
    seen="$seen$value: $answer
"
done
as_seen "$seen" "0.5: accepted as 0.5
2: refused
inf: refused
nan: accepted as nan
" || exit 1
