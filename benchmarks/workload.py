"""The work that is measured, the same for every side: ten columns, written in commits of many rows and of one.

Run as a program it is one side's worker, in an interpreter of its own::

    python workload.py SIDE URL

It makes its tables in the (empty) database, says so, and then does one phase for each line it reads; every line in
and out is a JSON object.  Needs only SQLAlchemy and what the side itself needs, so that a peer's environment does.
"""

from __future__ import annotations

import datetime as dt
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TextIO

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

BATCH = 100
"""Rows in a commit of the phases `insert`, `update` and `delete`."""


class AccountColumns:
    """The ten columns of the measured table, mixed into each side's own model."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(40))
    email: Mapped[str] = mapped_column(sa.String(40))
    status: Mapped[str] = mapped_column(sa.String(40))
    balance: Mapped[Decimal] = mapped_column(sa.Numeric(14, 2))
    currency: Mapped[str] = mapped_column(sa.String(3))
    note: Mapped[str] = mapped_column(sa.Text)
    credit_limit: Mapped[int]
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]


def values(number: int) -> dict[str, Any]:
    """Return the values of a row without its key."""
    moment = dt.datetime(2026, 1, 1, 12, 30)  # noqa: DTZ001 - the column has no zone
    return {
        "owner": f"owner {number}",
        "email": f"{number}@bank.example",
        "status": "open",
        "balance": Decimal("1.25"),
        "currency": "EUR",
        "note": "n" * 60,
        "credit_limit": number,
        "created_at": moment,
        "updated_at": moment,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to do the work.

    Attributes:
        engine: to the side's own database.
        session: makes a session on the engine.
        model: the mapped class, with the columns of `AccountColumns`.
        unit: gives the context manager in which each session is opened (says who and why, where the side can).
        history: the name of the table that must hold one row for each change afterwards; None for no audit.
        version: of the library that is measured.
    """

    engine: sa.Engine
    session: sessionmaker[Session]
    model: Any
    unit: Callable[[], AbstractContextManager[Any]] = nullcontext
    history: str | None = None
    version: str = sa.__version__


class Workload:
    """The phases of one side; each method does one and returns its figures."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def setup(self) -> dict[str, Any]:
        """Open the connection that the pool then keeps, so that no phase pays for it."""
        with self.side.engine.connect() as connection:
            connection.execute(sa.select(1))
        return {"version": self.side.version, "sqlalchemy": sa.__version__}

    def insert(self, *, rows: int) -> dict[str, list[float]]:
        """Add the rows, in commits of `BATCH`."""
        return self._commit_each(_batches(range(rows)), self._insert)

    def update(self) -> dict[str, list[float]]:
        """Load all rows and change one column of each, in commits of `BATCH`."""
        return self._commit_each(_batches(self._keys()), self._update)

    def delete(self) -> dict[str, list[float]]:
        """Load all rows and delete them, in commits of `BATCH`."""
        return self._commit_each(_batches(self._keys()), self._delete)

    def one_row(self, *, rows: int) -> dict[str, list[float]]:
        """Load, change and commit that many rows, each in a session of its own."""
        return self._commit_each(self._keys()[:rows], self._update_one)

    def _commit_each(self, parts: Sequence[Any], work: Callable[[Session, Any], None]) -> dict[str, list[float]]:
        """Do the work on each part in a session and transaction of its own.

        Returns:
            ``laps``: the seconds of each.
        """
        laps = []
        gc.collect()
        for part in parts:
            start = time.perf_counter()
            with self.side.unit(), self.side.session() as session:
                work(session, part)
                session.commit()
            laps.append(time.perf_counter() - start)
        return {"laps": laps}

    def _insert(self, session: Session, numbers: Sequence[int]) -> None:
        session.add_all([self.side.model(**values(number)) for number in numbers])

    def _update(self, session: Session, keys: Sequence[int]) -> None:
        for account in self._load(session, keys):
            account.balance += 1

    def _delete(self, session: Session, keys: Sequence[int]) -> None:
        for account in self._load(session, keys):
            session.delete(account)

    def _update_one(self, session: Session, key: int) -> None:
        session.get_one(self.side.model, key).balance += 1

    def _load(self, session: Session, keys: Sequence[int]) -> Iterable[Any]:
        return session.scalars(sa.select(self.side.model).where(self.side.model.id.in_(keys)))

    def fill(self, *, rows: int) -> dict[str, int]:
        """Fill the empty table through the driver, where nothing is recorded: each statement doubles the rows."""
        table, engine = self.side.model.__table__, self.side.engine
        others = [column for column in table.columns if column is not table.c.id]
        names = ["id", *(column.name for column in others)]
        statements: list[sa.Insert] = [table.insert().values(id=1, **values(1))]
        filled = 1
        while filled < rows:
            again = sa.select(table.c.id + filled, *others).where(table.c.id <= rows - filled)
            statements.append(table.insert().from_select(names, again))
            filled = min(2 * filled, rows)
        connection = engine.raw_connection()
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(str(statement.compile(engine, compile_kwargs={"literal_binds": True})))
        connection.commit()
        connection.close()
        return {"rows": filled}

    def bulk(self) -> dict[str, float]:
        """Change one column of all rows with one statement.

        Returns:
            ``seconds``, ``rows``, and ``growth``: by how many bytes the process's peak of resident memory rose.
        """
        table = self.side.model.__table__
        gc.collect()
        memory, start = _peak_memory(), time.perf_counter()
        with self.side.unit(), self.side.engine.begin() as connection:
            rows = connection.execute(table.update().values(balance=table.c.balance + 1)).rowcount
        return {"seconds": time.perf_counter() - start, "rows": rows, "growth": _peak_memory() - memory}

    def recorded(self) -> dict[str, int]:
        """Count the changes that the side recorded."""
        if self.side.history is None:
            return {"recorded": 0}
        with self.side.engine.connect() as connection:
            return {"recorded": connection.scalar(sa.text(f"SELECT count(*) FROM {self.side.history}")) or 0}

    def _keys(self) -> list[int]:
        with self.side.engine.connect() as connection:
            table = self.side.model.__table__
            return list(connection.scalars(sa.select(table.c.id).order_by(table.c.id)))


def _batches(items: Sequence[int]) -> list[Sequence[int]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _peak_memory() -> int:
    """Return the peak of the process's resident memory so far, in bytes (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Sides: each makes its tables in the empty database as the library's own documentation says, with default settings.


def plain(url: str) -> Side:
    """SQLAlchemy alone; what all ratios refer to."""

    class Base(DeclarativeBase):
        pass

    class Account(AccountColumns, Base):
        __tablename__ = "account"

    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    return Side(engine=engine, session=sessionmaker(engine), model=Account)


def audited(url: str) -> Side:
    """`sa_audit` with session capture: the mixin, guards and all."""
    return _audited(url, "session")


def captured(url: str) -> Side:
    """`sa_audit` with trigger capture."""
    return _audited(url, "trigger")


def _audited(url: str, capture: str) -> Side:
    sa_audit = _import("sa_audit")

    class Base(DeclarativeBase):
        pass

    sa_audit.configure(Base, capture=capture)

    class Account(sa_audit.Audited, AccountColumns, Base):  # type: ignore[misc,name-defined]
        __tablename__ = "account"

    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    return Side(
        engine=engine,
        session=sessionmaker(engine),
        model=Account,
        unit=lambda: sa_audit.context(actor="alice", reason="benchmark"),
        history="account_history",
        version=_version("sa-audit"),
    )


def continuum(url: str) -> Side:
    """SQLAlchemy-Continuum, as in its quick start."""
    return _versioned(url, "sqlalchemy_continuum", "sqlalchemy-continuum")


def history(url: str) -> Side:
    """SQLAlchemy-History, as in its quick start."""
    return _versioned(url, "sqlalchemy_history", "sqlalchemy-history")


def _versioned(url: str, module: str, distribution: str) -> Side:
    _import(module).make_versioned(user_cls=None)

    class Base(DeclarativeBase):
        pass

    class Account(AccountColumns, Base):
        __versioned__: dict[str, Any] = {}
        __tablename__ = "account"

    sa.orm.configure_mappers()
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    return Side(
        engine=engine,
        session=sessionmaker(engine),
        model=Account,
        history="account_version",
        version=_version(distribution),
    )


def audit_trail(url: str) -> Side:
    """sqlalchemy-audit-trail, as in its quick start: differences only, PostgreSQL only."""
    library = _import("audit_trail")

    class Base(DeclarativeBase):
        pass

    class Account(Base, AccountColumns, library.Audited):  # type: ignore[misc,name-defined]
        __tablename__ = "account"

    engine = sa.create_engine(url)
    if engine.dialect.name != "postgresql":
        raise RuntimeError("sqlalchemy-audit-trail runs on PostgreSQL only")
    trail = library.AuditTrail(engine, events=[])
    session = sessionmaker(engine)
    trail.install(session)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        _import("audit_trail.migrations").create_audit_tables(connection, trail.tables, trail.severities)
    trail.maintenance.ensure_partitions()
    return Side(
        engine=engine,
        session=session,
        model=Account,
        unit=lambda: trail.context(actor_type="user", actor_id="42", actor_label="alice"),
        history="audit.audit_activity",
        version=_version("sqlalchemy-audit-trail"),
    )


SIDES: dict[str, Callable[[str], Side]] = {
    "plain": plain,
    "sa_audit": audited,
    "trigger": captured,
    "continuum": continuum,
    "history": history,
    "audit_trail": audit_trail,
}


def _import(name: str) -> Any:
    import importlib

    return importlib.import_module(name)


def _version(distribution: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # run from its source tree
        return "of this tree"


def serve(name: str, url: str, commands: TextIO, answers: TextIO) -> None:
    """Set the side up, say so, and answer each command until there are no more.

    A command is ``{"phase": name, ...}`` with the phase's arguments; an answer is what the phase returns.
    """
    workload = Workload(SIDES[name](url))
    print(json.dumps(workload.setup()), file=answers, flush=True)
    for line in commands:
        arguments = json.loads(line)
        phase = getattr(workload, arguments.pop("phase"))
        print(json.dumps(phase(**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    own_answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, never between the answers
    serve(sys.argv[1], sys.argv[2], sys.stdin, own_answers)
