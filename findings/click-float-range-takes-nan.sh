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
# Needs a network that reaches the package registry. Exit 0: as seen. exit 1: it behaves differently now.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check click==8.5.1 2>/dev/null
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
printf '%s' "$seen"
[ "$seen" = "0.5: accepted as 0.5
2: refused
inf: refused
nan: accepted as nan
" ] || { echo "it behaves differently now"; exit 1; }
