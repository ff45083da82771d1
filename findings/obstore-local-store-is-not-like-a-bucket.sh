#!/bin/bash
# obstore 0.12.1: code that is right on MemoryStore, or on S3, fails on LocalStore in four ways. Deleting what is not there raises
# FileNotFoundError (S3 and MemoryStore: nothing happens). A key whose last segment ends in "#" and digits is refused (it is the
# name of a temporary file). A key that continues another ("k" and "k/x") cannot be stored. Replacing by ETag is not implemented.
# And put() calls fsync neither on the file nor on its folder, so an acknowledged object can be gone after a power cut.
#
# Output seen (LocalStore | MemoryStore):
#   delete missing: FileNotFoundError | done
#   put "snap#1": GenericError | done
#   put "k/x" beside "k": GenericError | done
#   replace by ETag: NotImplementedError | done
#   fsync and fdatasync calls of a put by LocalStore: 0
# Needs strace.
. "$(dirname "$0")/lib.sh"
need strace # of any version
venv obstore==0.12.1
mkdir "$work/folder" "$work/other"
timeout 30 "$work/venv/bin/python" - "$work/folder" <<'PY' || differs
import sys
import obstore
from obstore.store import LocalStore, MemoryStore
def outcome(work):
    try:
        work()
        return "done"
    except Exception as error:
        return type(error).__name__
steps = {
    "delete missing": lambda store: obstore.delete(store, "missing"),
    'put "snap#1"': lambda store: obstore.put(store, "snap#1", b"1"),
    'put "k/x" beside "k"': lambda store: obstore.put(store, "k/x", b"1"),
    "replace by ETag": lambda store: obstore.put(store, "k", b"2", mode={"e_tag": obstore.head(store, "k")["e_tag"]}),
}
seen = []
stores = (LocalStore(sys.argv[1]), MemoryStore())
for store in stores:
    obstore.put(store, "k", b"1")
for what, step in steps.items():
    here, there = (outcome(lambda store=store: step(store)) for store in stores)
    print(f"{what}: {here} | {there}")
    seen.append((here, there))
expected = ["FileNotFoundError", "GenericError", "GenericError", "NotImplementedError"]
sys.exit(seen != [(name, "done") for name in expected])
PY
timeout 60 strace -f -e trace=fsync,fdatasync,sync_file_range,syncfs,renameat,renameat2,rename,linkat,openat -o "$work/trace" \
    "$work/venv/bin/python" -c '
import sys, obstore
from obstore.store import LocalStore
obstore.put(LocalStore(sys.argv[1]), "durable", b"x" * 100_000)' "$work/other"
grep -q "$work/other/durable" "$work/trace" || { echo "the trace does not show the put"; exit 1; }
syncs=$(grep -cE ' (fsync|fdatasync|sync_file_range|syncfs)\(' "$work/trace" || true)
echo "fsync and fdatasync calls of a put by LocalStore: $syncs"
[ "$syncs" = 0 ] || differs
