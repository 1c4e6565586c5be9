#!/usr/bin/env python3
"""How long the one transaction of a large import holds SQLite's writer: 100,000 new users with hashes, then all of
them changed, then all of them removed, on the tables and with the statements that the store has.

    benches/imports/switch.py [ROWS]

Only the database's own work is measured, which is all that the transaction does; needs nothing but Python.
"""

import os
import re
import sqlite3
import sys
import tempfile
import time

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
SCHEMA = os.path.join(
    os.path.dirname(__file__), "../../src/store/migrations/sqlite/V1__first.sql"
)
PHC = "$argon2id$v=19$m=19456,t=2,p=1$" + "A" * 22 + "$" + "B" * 37
USERS = """INSERT INTO users (user_key, user_id, self_service_id, primary_extension, display_name, enabled, emcc_enabled)
SELECT key, c1, c2, c3, c4, CAST(c5 AS INTEGER), CAST(c6 AS INTEGER) FROM import_rows
WHERE import = 1 AND kind = 'user' AND action = 'put' ORDER BY key
ON CONFLICT (user_key) DO UPDATE SET
  user_id = excluded.user_id, self_service_id = excluded.self_service_id,
  primary_extension = excluded.primary_extension, display_name = excluded.display_name,
  enabled = excluded.enabled, emcc_enabled = excluded.emcc_enabled"""
HASHES = """INSERT INTO credentials (user_key, phc, changed_at, failures, must_change)
SELECT key, phc, 1, 0, 0 FROM import_rows
WHERE import = 1 AND kind = 'user' AND action = 'put' AND phc IS NOT NULL ORDER BY key
ON CONFLICT (user_key) DO UPDATE SET
  phc = excluded.phc, changed_at = excluded.changed_at,
  failures = 0, window_started = NULL, locked_until = NULL, must_change = 0"""
REMOVE = """DELETE FROM users WHERE user_key IN (
  SELECT key FROM import_rows WHERE import = 1 AND kind = 'user')"""


def in_one(connection, name, statements):
    began, worked = time.monotonic(), time.process_time()
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements:
        connection.execute(statement)
    connection.execute("COMMIT")
    took, worked = time.monotonic() - began, time.process_time() - worked
    # On a machine with other work the second figure is what it would take alone, but for the disk.
    print(f"{name}: {took:.2f} s, {worked:.2f} s of them at work, for {ROWS} rows in one transaction")


def main():
    with tempfile.TemporaryDirectory() as directory:
        connection = sqlite3.connect(os.path.join(directory, "x.db"), isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = 1")
        connection.executescript(open(SCHEMA, encoding="utf-8").read())
        began = time.monotonic()
        for first in range(0, ROWS, 1_000):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO import_rows (import, seq, kind, name, audited, change, action, key, phc,"
                " c1, c2, c3, c4, c5, c6) VALUES (1, ?, 'user', ?, 'user.add', 'added', 'put', ?, ?, ?, ?, ?, ?, '1', '1')",
                (
                    (
                        number,
                        f"User{number:06}",
                        f"user{number:06}",
                        PHC + f"{number:06}",
                        f"User{number:06}",
                        f"self{number}@munich.example",
                        str(number % 90_000),
                        f"A name of some length {number}",
                    )
                    for number in range(first, min(first + 1_000, ROWS))
                ),
            )
            connection.execute("COMMIT")
        print(f"staged in batches of 1,000: {time.monotonic() - began:.2f} s")
        in_one(connection, "new", [USERS, HASHES])
        connection.execute("UPDATE import_rows SET c4 = c4 || 'x', phc = phc || 'x'")
        in_one(connection, "changed", [USERS, HASHES])
        in_one(connection, "removed", [REMOVE])
        print(f"SQLite {re.sub('[^0-9.]', '', sqlite3.sqlite_version)}")


main()
