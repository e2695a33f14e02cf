"""Resources in SQLite: what was acknowledged is there after kill -9."""

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import orjson

VERSION = 1
# A body with a NaN is no JSON for SQLite, and has no display name that could be looked up.
DISPLAYED = "CASE WHEN json_valid(body) THEN json_extract(body, '$.displayName') END"


class StateError(Exception):
    """The state folder can't be used; the message says why and what to do."""


class State:
    """Named resources with a kind and a parent. Every method is atomic and safe between threads."""

    def __init__(self, path: Path):
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise StateError(
                    f"The state folder {path.parent} was written by a newer version (format "
                    f"{found}, this one reads {VERSION}). Upgrade, or name another folder in "
                    "LOCAL_CLOUD_DIR."
                )
            if self._db.execute("PRAGMA quick_check").fetchone()[0] != "ok":  # before any write
                raise sqlite3.DatabaseError("damaged")
            # A killed process loses nothing in WAL mode; a power cut could lose the last writes.
            self._db.executescript(
                f"""PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
                CREATE TABLE IF NOT EXISTS resources (
                    name TEXT PRIMARY KEY, kind TEXT, parent TEXT, body TEXT);
                CREATE INDEX IF NOT EXISTS listed ON resources (kind, parent);
                CREATE INDEX IF NOT EXISTS displayed ON resources (kind, {DISPLAYED});
                CREATE TABLE IF NOT EXISTS counter (last INTEGER);
                INSERT INTO counter SELECT 1000000 WHERE NOT EXISTS (SELECT 1 FROM counter);
                PRAGMA user_version={VERSION};"""
            )
        except sqlite3.Error as error:
            raise StateError(
                f"The local cloud can't use {path} ({error}). Nothing was changed; move the file "
                "away to start empty, or name another folder in LOCAL_CLOUD_DIR."
            ) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def next_id(self) -> str:
        """A number no resource of any service has had before."""
        with self._lock:
            update = "UPDATE counter SET last = last + 1 RETURNING last"
            return str(self._db.execute(update).fetchone()[0])

    def get(self, name: str) -> dict | None:
        with self._lock:
            row = self._db.execute("SELECT body FROM resources WHERE name=?", (name,)).fetchone()
        return _read(row[0]) if row else None

    def between(self, kind: str, first: str, last: str) -> dict[str, dict]:
        """Resources of a kind by name, for the names from `first` to `last`."""
        # The plus keeps SQLite to the index of names: a kind may have many more.
        query = "SELECT name, body FROM resources WHERE name>=? AND name<=? AND +kind=?"
        with self._lock:
            rows = self._db.execute(query, (first, last, kind)).fetchall()
        return {name: _read(body) for name, body in rows}

    def put(self, kind: str, name: str, resource: dict, *, parent: str = "") -> dict:
        """Write a resource, new or not."""
        row = (name, kind, parent, json.dumps(resource))
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO resources VALUES (?,?,?,?)", row)
        return resource

    def create(self, kind: str, name: str, resource: dict, *, parent: str = "") -> dict:
        """Write a new resource.

        Raises:
            KeyError: one of that name is there.
        """
        try:
            row = (name, kind, parent, json.dumps(resource))
            with self._lock:
                self._db.execute("INSERT INTO resources VALUES (?,?,?,?)", row)
        except sqlite3.IntegrityError as error:
            raise KeyError(name) from error
        return resource

    def update(self, name: str, change: Callable[[dict], dict]) -> dict:
        """Replace a resource by `change(resource)`.

        Raises:
            KeyError: it is not there.
        """
        with self._lock:
            resource = self.get(name)
            if resource is None:
                raise KeyError(name)
            changed = change(resource)
            self._db.execute(
                "UPDATE resources SET body=? WHERE name=?", (json.dumps(changed), name)
            )
        return changed

    def delete(self, name: str) -> bool:
        with self._lock:
            return self._db.execute("DELETE FROM resources WHERE name=?", (name,)).rowcount > 0

    def names(self, kind: str, start: str) -> list[str]:
        """Names of a kind that begin with `start`, sorted."""
        query = "SELECT name FROM resources WHERE kind=? AND name>=? AND name<? ORDER BY name"
        with self._lock:
            rows = self._db.execute(query, (kind, start, start + "\U0010ffff")).fetchall()
        return [row[0] for row in rows]

    def list(self, kind: str, parent: str | None = None, displayed: str = "") -> list[dict]:
        """Resources of a kind (below a parent, of a display name), in the order they were made."""
        query, values = "SELECT body FROM resources WHERE kind=?", [kind]
        if parent is not None:
            query, values = f"{query} AND parent=?", [*values, parent]
        if displayed:
            query, values = f"{query} AND {DISPLAYED}=?", [*values, displayed]
        with self._lock:
            rows = self._db.execute(query + " ORDER BY rowid", values).fetchall()
        return [_read(row[0]) for row in rows]


def _read(body: str) -> dict:
    try:
        return orjson.loads(body)
    except ValueError:  # it has a NaN
        return json.loads(body)
