"""The databases that a test can run on, each handed to it empty.

Without configuration: SQLite in a file; PostgreSQL, started from the wheel that brings its programs, and on
127.0.0.1:5432; MariaDB started from PATH, which makes nothing durable, or else on 127.0.0.1:3306.
`SA_AUDIT_TEST_POSTGRESQL` and `SA_AUDIT_TEST_MARIADB` name other servers, by URLs separated with commas.
Must not import sa_audit: the tests' ground is laid without what they test.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
import pymysql  # type: ignore[import-untyped]  # it has no types
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from tests.servers import Unavailable, bundled_postgresql, shared, start_mariadb, start_postgresql

CAPABILITIES = {
    "arrays": "array columns",
    "concurrent-writers": "two transactions that write at the same time",
    "deferred-constraints": "foreign keys checked at commit",
    "insert-returning": "INSERT ... RETURNING",
    "native-enum": "enumerated types of its own",
    "returning-old": "RETURNING old.* of an update",
    "roles": "accounts that the test may create, with names beginning with `Database.role_prefix`",
    "schemas": "tables in a second schema, `Database.other_schema`",
    "sequences": "sequences as objects of their own",
    "snapshots": "pg_current_snapshot() and pg_visible_in_snapshot()",
    "transactional-ddl": "CREATE and DROP that a rollback undoes",
    "truncate": "TRUNCATE",
    "truncate-trigger": "triggers that fire on TRUNCATE",
    "two-phase": "transactions prepared before they commit",
    "update-returning": "UPDATE ... RETURNING",
}
"""What a test may ask for with `@pytest.mark.needs(...)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An empty database for one test.

    Attributes:
        name: the test's parameter: "sqlite", "postgresql", "postgresql-oldest", "mariadb" or "mariadb-oldest".
        dialect: the dialect's name in SQLAlchemy.
        version: the server's version, such as (18, 4).
        url: for `create_engine`.
        async_urls: for `create_async_engine`, by driver ("postgresql+asyncpg"); the first is the usual one.
        capabilities: keys of `CAPABILITIES`.
        role_prefix: how the names of the roles that the test makes must begin, to be dropped after it.
        other_schema: name of a second schema, which the `other_schema` fixture creates; None without schemas.
        renew: empties the database again, ending every connection to it.
        keep: keeps a copy of the database as it is under a name, ending every connection to it; None where copying
            it takes longer than making its tables.
        recall: makes the database what it was when it was kept under a name, ending every connection to it; gives
            False, and does nothing, where it never was.
    """

    name: str
    dialect: str
    version: tuple[int, ...]
    url: URL
    async_urls: Mapping[str, URL]
    capabilities: frozenset[str]
    role_prefix: str
    other_schema: str | None
    renew: Callable[[], None] = field(repr=False)
    keep: Callable[[str], None] | None = field(repr=False, default=None)
    recall: Callable[[str], bool] = field(repr=False, default=lambda name: False)


class Server(Protocol):
    """A server on which a worker has one database, emptied before each test."""

    version: tuple[int, ...]

    def database(self, name: str, worker: str) -> Database:
        """Describe the worker's database; it exists after its first `renew()`."""

    def close(self, worker: str) -> None:
        """Drop what the worker made."""


def all_servers() -> bool:
    """Tell whether everything shall run on the oldest server at hand as well."""
    return os.environ.get("SA_AUDIT_TEST_ALL_SERVERS") == "1"


def parameters(*, every_server: bool, only: Iterable[str] = ()) -> list[str]:
    """Return the names of the databases that a test runs on, available or not."""
    kinds = [kind for kind in ("sqlite", "postgresql", "mariadb") if not only or kind in only]
    names = list(kinds)
    if every_server or all_servers():
        names += [f"{kind}-oldest" for kind in kinds if kind == "postgresql" or len(_given(kind)) > 1]
    return names


def required() -> frozenset[str]:
    """Return the names of the databases without which the run has to fail, from `SA_AUDIT_TEST_REQUIRE`."""
    return frozenset(part.strip() for part in os.environ.get("SA_AUDIT_TEST_REQUIRE", "").split(",") if part.strip())


def find_server(name: str) -> Server:
    """Return the server for a database's name: the newest of its kind, or the oldest, which has to be another one.

    Raises:
        Unavailable: There is none.
    """
    kind, _, age = name.partition("-")
    candidates = sorted(_candidates(kind), key=lambda candidate: candidate[0])
    if age and len(candidates) < 2:
        raise Unavailable(f"there is only one {kind} server")
    return _open(kind, candidates[0 if age else -1][1]())


def sqlite_database(directory: Path) -> Database:
    """Describe the SQLite database in a file of the directory."""
    path = directory / "test.db"
    version = sqlite3.sqlite_version_info
    capabilities = {"deferred-constraints", "transactional-ddl"}
    if version >= (3, 35):
        capabilities |= {"insert-returning", "update-returning"}

    def renew() -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def keep(name: str) -> None:
        _kept_files[name] = path.read_bytes()

    def recall(name: str) -> bool:
        if name not in _kept_files:
            return False
        renew()
        path.write_bytes(_kept_files[name])
        return True

    return Database(
        name="sqlite",
        dialect="sqlite",
        version=version,
        url=URL.create("sqlite", database=str(path)),
        async_urls={"sqlite+aiosqlite": URL.create("sqlite+aiosqlite", database=str(path))},
        capabilities=frozenset(capabilities),
        role_prefix="",
        other_schema=None,
        renew=renew,
        keep=keep,
        recall=recall,
    )


_kept_files: dict[str, bytes] = {}
"""SQLite's databases that this worker keeps, by their names."""


def _given(kind: str) -> list[str]:
    return [url.strip() for url in os.environ.get(f"SA_AUDIT_TEST_{kind.upper()}", "").split(",") if url.strip()]


def _candidates(kind: str) -> list[tuple[tuple[int, ...], Callable[[], str]]]:
    """Return the servers of that kind, each with its version and what gives its URL (and starts it if needed).

    Raises:
        Unavailable: There is none, or one that was named can't be reached.
    """
    given = _given(kind)
    if given:
        return [(_open(kind, url).version, partial(str, url)) for url in given]
    return _postgresql_candidates() if kind == "postgresql" else _mariadb_candidates()


def _postgresql_candidates() -> list[tuple[tuple[int, ...], Callable[[], str]]]:
    usual = "postgresql://postgres@127.0.0.1:5432/postgres"
    found: list[tuple[tuple[int, ...], Callable[[], str]]] = []
    try:
        found.append((_open("postgresql", usual).version, partial(str, usual)))
    except Unavailable as error:
        reason = str(error)
    else:
        reason = ""
    for version in (18,) if found else (18, 16):
        if bundled_postgresql(version) is not None:
            found.append(((version,), partial(shared, f"postgresql-{version}", partial(start_postgresql, version))))
    if not found:
        raise Unavailable(f"{reason}; and no wheel with PostgreSQL's programs is installed")
    return found


def _mariadb_candidates() -> list[tuple[tuple[int, ...], Callable[[], str]]]:
    try:
        own = shared("mariadb", start_mariadb)
        return [(_open("mariadb", own).version, partial(str, own))]
    except Unavailable as error:
        usual = "mysql://root@127.0.0.1:3306/"
        try:
            return [(_open("mariadb", usual).version, partial(str, usual))]
        except Unavailable as other:
            raise Unavailable(f"{error}; {other}") from error


@cache
def _open(kind: str, url: str) -> Server:
    return PostgreSQL(url) if kind == "postgresql" else MariaDB(url)


class PostgreSQL:
    """A PostgreSQL server, spoken to as a role that may create databases."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        try:
            with self._connect(None) as connection:
                row = connection.execute(
                    "SELECT current_setting('server_version_num')::int,"
                    " current_setting('max_prepared_transactions')::int,"
                    " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),"
                    " current_setting('fsync')::bool"
                ).fetchone()
        except psycopg.OperationalError as error:
            raise Unavailable(f"no PostgreSQL answers at {self._url!r}: {error}") from error
        assert row is not None
        self.version: tuple[int, ...] = (row[0] // 10000, row[0] % 10000)
        self._prepared, self._superuser = row[1] > 0, row[2]
        self._copies_files = self.version >= (15,) and not row[3]  # faster, if the files need not be made durable
        self._kept: dict[tuple[str, str], str] = {}

    def database(self, name: str, worker: str) -> Database:
        """Describe the worker's database."""
        capabilities = set(CAPABILITIES) - {"returning-old", "roles", "two-phase"}
        capabilities |= {"returning-old"} if self.version >= (18,) else set()
        capabilities |= {"two-phase"} if self._prepared else set()
        capabilities |= {"roles"} if self._superuser else set()
        drivers = ("postgresql+asyncpg", "postgresql+psycopg")
        return Database(
            name=name,
            dialect="postgresql",
            version=self.version,
            url=self._url.set(drivername="postgresql+psycopg", database=worker),
            async_urls={driver: self._url.set(drivername=driver, database=worker) for driver in drivers},
            capabilities=frozenset(capabilities),
            role_prefix=f"{worker}_",
            other_schema="other",
            renew=partial(self._renew, worker),
            keep=partial(self._keep, worker),
            recall=partial(self._recall, worker),
        )

    def close(self, worker: str) -> None:
        """Drop the worker's databases and its roles."""
        self._clear(worker)
        with self._connect(None) as connection:
            for key in [key for key in self._kept if key[0] == worker]:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(self._kept.pop(key))))

    def _clear(self, worker: str) -> None:
        with self._connect(None) as connection:
            prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [worker]).fetchall()
            if prepared:
                with self._connect(worker) as inside:
                    for (identity,) in prepared:
                        inside.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(identity)))
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(worker)))
            for (role,) in connection.execute(
                "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [f"{worker}_"]
            ).fetchall():
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def _renew(self, worker: str) -> None:
        """Drop every schema, four times as fast as a new database; make a new one where more than schemas was left."""
        try:
            with self._connect(worker) as connection:
                connection.execute(_END_CONNECTIONS)
                if not connection.execute(_RESIDUE, {"prefix": f"{worker}_"}).fetchone():
                    connection.execute(_EMPTY)
                    return
        except psycopg.OperationalError as error:
            if error.sqlstate not in (None, "3D000"):  # the database does not exist (before authentication: no code)
                raise
        self._clear(worker)
        with self._connect(None) as connection:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(worker))
            connection.execute(create)

    def _keep(self, worker: str, name: str) -> None:
        copy = f"{worker}_kept_{len(self._kept)}"
        with self._connect(worker) as connection:
            connection.execute(_END_CONNECTIONS)
        self._copy(worker, copy)
        self._kept[worker, name] = copy

    def _recall(self, worker: str, name: str) -> bool:
        if (worker, name) not in self._kept:
            return False
        self._clear(worker)
        self._copy(self._kept[worker, name], worker)
        return True

    def _copy(self, original: str, copy: str) -> None:
        statement = "CREATE DATABASE {} TEMPLATE {}" + (" STRATEGY FILE_COPY" if self._copies_files else "")
        with self._connect(None) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(copy), sql.Identifier(original)))

    def _connect(self, database: str | None) -> psycopg.Connection[tuple[Any, ...]]:
        url = self._url.set(drivername="postgresql", database=database or self._url.database)
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True, connect_timeout=5)


_END_CONNECTIONS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""

_RESIDUE = """
    SELECT 1 WHERE EXISTS (SELECT FROM pg_event_trigger)
      OR EXISTS (SELECT FROM pg_extension WHERE extname <> 'plpgsql')
      OR EXISTS (SELECT FROM pg_publication)
      OR EXISTS (SELECT FROM pg_foreign_data_wrapper)
      OR EXISTS (SELECT FROM pg_largeobject_metadata)
      OR EXISTS (SELECT FROM pg_default_acl)
      OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())
      OR EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname, %(prefix)s))
      OR EXISTS (SELECT FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid
                 WHERE d.datname = current_database() AND (s.setdatabase IS NOT NULL OR d.datacl IS NOT NULL))"""

_EMPTY = r"""
    DO $$
    DECLARE names text;
    BEGIN
      SELECT string_agg(quote_ident(nspname), ', ') INTO names FROM pg_namespace
      WHERE nspname !~ '^pg_' AND nspname <> 'information_schema';
      EXECUTE coalesce('DROP SCHEMA ' || names || ' CASCADE', 'SELECT 1');
      CREATE SCHEMA public;
      IF current_setting('server_version_num')::int >= 150000 THEN
        ALTER SCHEMA public OWNER TO pg_database_owner;
        GRANT USAGE ON SCHEMA public TO PUBLIC;
      ELSE
        GRANT ALL ON SCHEMA public TO PUBLIC;
      END IF;
    END $$"""


_NO_TLS: Final = {"ssl_disabled": "true"}
"""PyMySQL reads all certificates of the machine for each connection: 32 of the 35 ms that it takes to connect."""


class MariaDB:
    """A MariaDB server, spoken to as a user that may create databases."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._connection: pymysql.Connection[Any] | None = None  # kept: connecting takes longer than emptying
        try:
            version, grants = self._execute("SELECT VERSION()", "SHOW GRANTS")
        except pymysql.OperationalError as error:
            raise Unavailable(f"no MariaDB answers at {self._url!r}: {error}") from error
        text = str(version[0][0])
        if "MariaDB" not in text:
            raise Unavailable(f"the server at {self._url!r} is not MariaDB but {text}")
        self.version: tuple[int, ...] = tuple(int(part) for part in text.split("-")[0].split("."))
        self._superuser = any("ALL PRIVILEGES ON *.*" in str(row[0]) for row in grants)

    def database(self, name: str, worker: str) -> Database:
        """Describe the worker's database."""
        capabilities = {"concurrent-writers", "insert-returning", "native-enum", "schemas", "sequences", "truncate"}
        capabilities |= {"two-phase"} | ({"roles"} if self._superuser else set())
        return Database(
            name=name,
            dialect="mariadb",
            version=self.version,
            url=self._url.set(drivername="mariadb+pymysql", database=worker).update_query_dict(_NO_TLS),
            async_urls={"mariadb+asyncmy": self._url.set(drivername="mariadb+asyncmy", database=worker)},
            capabilities=frozenset(capabilities),
            role_prefix=f"{worker}_",
            other_schema=f"{worker}_other",
            renew=partial(self._renew, worker),
        )

    def close(self, worker: str) -> None:
        """Drop the worker's databases and its users."""
        self._clear(worker)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _clear(self, worker: str) -> None:
        own = f"{{0}} = '{worker}' OR LEFT({{0}}, {len(worker) + 1}) = '{worker}_'"
        self._end_connections(f"{own.format('db')} OR {own.format('user')}")
        schemas, users = self._execute(
            f"SELECT schema_name FROM information_schema.schemata WHERE {own.format('schema_name')}",
            f"SELECT user, host, is_role FROM mysql.user WHERE {own.format('user')}",
        )
        for (schema,) in schemas:
            self._drop(schema)
        for user, host, is_role in users:
            self._execute(f"DROP ROLE `{user}`" if is_role == "Y" else f"DROP USER `{user}`@`{host}`")

    def _end_connections(self, own: str) -> None:
        """Wait for the connections to end, and kill those that stay.

        The server gives the thread of a connection that ends to the next one that comes: a KILL that meets it on the
        way may end the wrong one, which then loses its connection in the middle of a statement.
        """
        find = f"SELECT id FROM information_schema.processlist WHERE {own}"
        start, killed = time.monotonic(), False
        while connections := self._execute(find)[0]:
            waited = time.monotonic() - start
            if waited > 30:
                raise RuntimeError(f"the connections {connections} do not end, though they were killed")
            if waited > 1 and not killed:
                killed = True
                for (connection,) in connections:
                    self._execute(f"KILL {connection}", ignore=(1094,))  # it ended meanwhile
            time.sleep(0.01)

    def _renew(self, worker: str) -> None:
        self._clear(worker)
        self._execute(f"CREATE DATABASE IF NOT EXISTS `{worker}` CHARACTER SET utf8mb4")

    def _drop(self, schema: str) -> None:
        """Drop the schema; roll back a transaction that was prepared and then forgotten, if it stands in the way."""
        drop = f"DROP DATABASE IF EXISTS `{schema}`"
        try:
            self._execute("SET lock_wait_timeout = 3, innodb_lock_wait_timeout = 3", drop)
        except pymysql.OperationalError as error:
            if error.args[0] == 1010 and self._is_empty(schema):
                return  # the server has left a file of its own in the directory, such as a backup of triggers
            if error.args[0] != 1205:
                raise
            (forgotten,) = self._execute("XA RECOVER")
            for form, length, _, data in forgotten:
                rollback = f"XA ROLLBACK X'{data[:length].hex()}', X'{data[length:].hex()}', {form}"
                self._execute(rollback, ignore=(1397, 1399))  # another connection's, still in use
            self._execute(drop)

    def _is_empty(self, schema: str) -> bool:
        (tables,) = self._execute(f"SELECT 1 FROM information_schema.tables WHERE table_schema = '{schema}' LIMIT 1")
        return not tables

    def _execute(self, *statements: str, ignore: tuple[int, ...] = ()) -> list[tuple[tuple[Any, ...], ...]]:
        """Run the statements and return the rows of each; errors with these numbers are passed over."""
        if self._connection is None:
            self._connection = self._connect()
        results = []
        with self._connection.cursor() as cursor:
            for statement in statements:
                try:
                    cursor.execute(statement)
                except pymysql.Error as error:
                    if error.args[0] not in ignore:
                        raise
                    results.append(())
                else:
                    results.append(tuple(cursor.fetchall()))
        return results

    def _connect(self) -> pymysql.Connection[Any]:
        url = self._url
        socket = {"unix_socket": str(url.query["unix_socket"])} if "unix_socket" in url.query else {}
        return pymysql.connect(
            host=url.host or "127.0.0.1",
            port=url.port or 3306,
            user=url.username or "root",
            password=url.password or "",
            autocommit=True,
            connect_timeout=5,
            ssl_disabled=True,
            **socket,
        )
