#!/bin/bash
# obstore 0.12.1: get_range and get_ranges give fewer bytes than were asked for, without an error, when the range ends behind the
# object: a truncated object reads as a short one, and the caller must compare lengths. Only a range that begins at or behind the
# end raises, and then the general GenericError, whose text differs between stores.
#
# Output seen (10 bytes stored; MemoryStore and LocalStore):
#   5..20: b'56789'
#   ranges 0..3, 8..20: [b'012', b'89']
#   10..12: GenericError
#
. "$(dirname "$0")/lib.sh"
venv obstore==0.12.1
mkdir "$work/folder"
timeout 30 "$work/venv/bin/python" - "$work/folder" <<'PY' || differs
import sys
import obstore
from obstore.store import LocalStore, MemoryStore
as_seen = True
for store in (MemoryStore(), LocalStore(sys.argv[1])):
    obstore.put(store, "key", b"0123456789")
    beyond = bytes(obstore.get_range(store, "key", start=5, end=20))
    several = [bytes(part) for part in obstore.get_ranges(store, "key", starts=[0, 8], ends=[3, 20])]
    try:
        behind = bytes(obstore.get_range(store, "key", start=10, end=12))
    except Exception as error:
        behind = type(error).__name__
    print(f"{type(store).__name__}: 5..20: {beyond}; ranges 0..3, 8..20: {several}; 10..12: {behind}")
    as_seen = as_seen and (beyond, several, behind) == (b"56789", [b"012", b"89"], "GenericError")
sys.exit(not as_seen)
PY
