#!/bin/bash
# sqlite3 of Python 3.11.2 with SQLite 3.40.1 (Debian 12), journal_mode=WAL: a SELECT of which rows are left outlives COMMIT, and with it
# the connection's snapshot. `in_transaction` is False then, yet the next BEGIN sees the database as it was, however long ago; a
# write in it fails with "database is locked" at once, whatever the timeout, although nobody holds a lock. It ends when the cursor is
# closed. One fetchone() of several rows is enough in a long-lived process, if its cursor is kept in a variable.
#
# Output seen:
#   SQLite 3.40.1
#   after COMMIT: in_transaction False
#   another connection has written 2; BEGIN, SELECT: 1
#   UPDATE after 0 s: database is locked
#   cursor closed; SELECT: 2
# Needs root, to install python3.
# Versions: libpython3.11-stdlib 3.11.2-6+deb12u6, python3.11 3.11.2-6+deb12u6, libsqlite3-0 3.40.1-2+deb12u2.
. "$(dirname "$0")/lib.sh"
need libpython3.11-stdlib=3.11.2-6+deb12u6 python3.11=3.11.2-6+deb12u6
unpack libsqlite3-0=3.40.1-2+deb12u2
seen=$(/usr/bin/python3.11 - "$work/database" <<'PY'
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
print("SQLite", sqlite3.sqlite_version)
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
as_seen "$seen" "SQLite 3.40.1
after COMMIT: in_transaction False
another connection has written 2; BEGIN, SELECT: 1
UPDATE after 0 s: database is locked
cursor closed; SELECT: 2" || exit 1
