#!/bin/bash
# import-linter 2.17 with grimp 3.20: an import that breaks a contract passes if the file was changed and its modification time was not. The
# cache (.import_linter_cache, on by default) knows a file by its time, not by its size or content. Files keep such a time when
# they come out of an archive or an image that is built reproducibly (all times the same), by `cp -p` or `rsync -t` of two
# versions of the same time, or from a file system that has whole seconds. --no-cache finds the import.
#
# Output seen:
#   pkg.a without an import: 1 kept, 0 broken.
#   pkg.a imports pkg.b, the time is the same: 1 kept, 0 broken.
#   the same with --no-cache: 0 kept, 1 broken.
# Needs a network that reaches the package registry.
. "$(dirname "$0")/lib.sh"
venv import-linter==2.17 grimp==3.20
mkdir -p "$work/project/pkg"
cd "$work/project"
printf '%s\n' '[importlinter]' 'root_package = pkg' '[importlinter:contract:1]' 'name = a must not import b' 'type = forbidden' \
    'source_modules = pkg.a' 'forbidden_modules = pkg.b' >.importlinter
touch pkg/__init__.py pkg/a.py pkg/b.py
linted() { # options
    { timeout 60 "$work/venv/bin/lint-imports" "$@" || true; } | sed -n 's/^Contracts: //p'
}
touch -d @1700000000 pkg/*.py
first=$(linted)
echo 'import pkg.b' >pkg/a.py
touch -d @1700000000 pkg/a.py
as_seen "pkg.a without an import: $first
pkg.a imports pkg.b, the time is the same: $(linted)
the same with --no-cache: $(linted --no-cache)" "pkg.a without an import: 1 kept, 0 broken.
pkg.a imports pkg.b, the time is the same: 1 kept, 0 broken.
the same with --no-cache: 0 kept, 1 broken." || exit 1
