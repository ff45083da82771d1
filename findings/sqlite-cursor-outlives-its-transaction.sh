#!/bin/bash
# sqlite3 of Python 3.11 with SQLite 3.40 (Debian 12), journal_mode=WAL: a SELECT of which rows are left outlives COMMIT, and with it
# the connection's snapshot. `in_transaction` is False then, yet the next BEGIN sees the database as it was, however long ago; a
# write in it fails with "database is locked" at once, whatever the timeout, although nobody holds a lock. It ends when the cursor is
# closed. One fetchone() of several rows is enough in a long-lived process, if its cursor is kept in a variable.
#
# Output seen:
#   after COMMIT: in_transaction False
#   another connection has written 2; BEGIN, SELECT: 1
#   UPDATE after 0 s: database is locked
#   cursor closed; SELECT: 2
# Needs root to install python3. Exit 0: as seen. exit 1: it behaves differently now.
set -eu
command -v /usr/bin/python3 >/dev/null || { apt-get update -qq; apt-get install -y -qq --no-install-recommends python3 >/dev/null; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
seen=$(/usr/bin/python3 - "$work/database" <<'PY'
import sqlite3
import sys
import time

def connected() -> sqlite3.Connection:
    return sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)

one, other = connected(), connected()
one.execute("PRAGMA journal_mode=WAL")
one.execute("CREATE TABLE t (value)")
one.execute("INSERT INTO t VALUES (1), (1)")
one.execute("BEGIN")
cursor = one.execute("SELECT value FROM t")
cursor.fetchone()
one.execute("COMMIT")
print("after COMMIT: in_transaction", one.in_transaction)
other.execute("UPDATE t SET value = 2")
one.execute("BEGIN")
print("another connection has written 2; BEGIN, SELECT:", *one.execute("SELECT max(value) FROM t").fetchone())
begun = time.monotonic()
try:
    one.execute("UPDATE t SET value = 3")
except sqlite3.OperationalError as error:
    print(f"UPDATE after {time.monotonic() - begun:.0f} s: {error}")
one.execute("ROLLBACK")
cursor.close()
print("cursor closed; SELECT:", *one.execute("SELECT max(value) FROM t").fetchone())
PY
)
echo "$seen"
[ "$seen" = "after COMMIT: in_transaction False
another connection has written 2; BEGIN, SELECT: 1
UPDATE after 0 s: database is locked
cursor closed; SELECT: 2" ] || { echo "it behaves differently now"; exit 1; }
