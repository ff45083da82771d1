#!/bin/bash
# pytest-xdist 3.8.0 with pytest 9.2.0: --dist loadfile gives files to its workers by their number of tests, the most first, whatever the
# order on the command line. (The help of --loadscope-reorder speaks of loadscope only.) A file with a single test comes last, and in
# a suite with real file systems that is the one that takes a minute: one worker runs it while the others have nothing left. To
# have the slow ones begin, name them first and add --no-loadscope-reorder.
#
# Output seen:
#   load:                             test_a test_b test_c
#   loadfile:                         test_c test_b test_a
#   loadfile --no-loadscope-reorder:  test_a test_b test_c
# Needs a network that reaches the package registry. Exit 0: as seen. exit 1: it behaves differently now.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check pytest==9.2.0 pytest-xdist==3.8.0 2>/dev/null
cd "$work"
echo "def test_slow(): pass" >test_a.py
printf 'def test_%d(): pass\n' 1 2 >test_b.py
printf 'def test_%d(): pass\n' 1 2 3 4 5 >test_c.py
order() { # of the files, as one worker runs them
    venv/bin/python -m pytest -v -n 1 "$@" test_a.py test_b.py test_c.py 2>&1 | grep -o 'PASSED test_.' | cut -d' ' -f2 | uniq | xargs
}
seen="load:                             $(order --dist load)
loadfile:                         $(order --dist loadfile)
loadfile --no-loadscope-reorder:  $(order --dist loadfile --no-loadscope-reorder)"
echo "$seen"
[ "$seen" = "load:                             test_a test_b test_c
loadfile:                         test_c test_b test_a
loadfile --no-loadscope-reorder:  test_a test_b test_c" ] || { echo "it behaves differently now"; exit 1; }
