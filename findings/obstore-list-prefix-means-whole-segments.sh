#!/bin/bash
# obstore 0.12.1: list(prefix="ab") does not find the object "abc", and list(prefix="abc") does not find the object "abc" itself:
# a prefix is a folder, compared by whole path segments. In S3's own API (which it speaks) a prefix is any beginning of a key. Who
# names objects by a hash and lists a range of them by its first digits gets an empty list and no error. The same for MemoryStore
# and LocalStore.
#
# Output seen (both stores):
#   'ab': []
#   'abc': ['abc/x']
#   None: ['abc', 'abc/x', 'abd']        (LocalStore: without 'abc', which it could not hold beside 'abc/x')
#
. "$(dirname "$0")/lib.sh"
venv obstore==0.12.1
mkdir "$work/folder"
timeout 30 "$work/venv/bin/python" - "$work/folder" <<'PY' || differs
import sys
import obstore
from obstore.store import LocalStore, MemoryStore
as_seen = True
for store, keys in ((MemoryStore(), ["abc", "abc/x", "abd"]), (LocalStore(sys.argv[1]), ["abc/x", "abd"])):
    for key in keys:
        obstore.put(store, key, b"1")
    print(type(store).__name__)
    for prefix, expected in (("ab", []), ("abc", ["abc/x"]), (None, keys)):
        found = sorted(meta["path"] for chunk in obstore.list(store, prefix=prefix) for meta in chunk)
        print(f"  {prefix!r}: {found}")
        as_seen = as_seen and found == expected
sys.exit(not as_seen)
PY
