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
# Needs a network that reaches the package registry.
. "$(dirname "$0")/lib.sh"
venv pytest==9.2.0 pytest-xdist==3.8.0
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
as_seen "$seen" "load:                             test_a test_b test_c
loadfile:                         test_c test_b test_a
loadfile --no-loadscope-reorder:  test_a test_b test_c" || exit 1
