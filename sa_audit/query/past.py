"""What one past session knows: its moment, what it may read as it is now, whether the moment is settled.

Asks the database through a connection that sees the present, within the transaction that reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.selectable import TableClause

from ..errors import CaptureMissing, ConfigurationError, InvalidMoment, NotAudited
from ..model import AuditedTable, Digested, Marker, audited_of
from ..model.tables import BASELINE_DONE
from .decrypting import load_keys
from .formers import formers_at
from .moment import Moment
from .names import Former, names_of
from .past_compiler import PastDialect, past_dialect
from .past_database import PastDatabase
from .past_state import recorded_at
from .pruned import refuse_pruned


class Past:
    """A moment, and what a session over it has made sure of.

    Args:
        moment: the moment.
        present: mapped classes and tables that may be read as they are now.

    Attributes:
        settled: whether the state at the moment can't change any more; None where a database doesn't tell.
        parameter: the moment's value in a statement.

    Raises:
        ConfigurationError: if something in ``present`` is no table, or is audited.
    """

    def __init__(self, moment: Moment, present: Iterable[Any]) -> None:
        self.moment = moment
        self.parameter = moment.parameter
        self.settled: bool | None = None
        if not isinstance(present, Iterable):
            raise ConfigurationError(f"as_of(present={present!r}): give a set of mapped classes and tables")
        self._present = frozenset(table for item in present for table in _tables_of(item))
        self._lightweight = frozenset(table.fullname for table in self._present if not isinstance(table, sa.Table))
        self._looks: list[bool | None] = []

    def dialects_of(self, engine: Engine) -> PastDialect:
        """Give the past side of an engine's dialect.

        Raises:
            ConfigurationError: for a database that the library does not know.
            InvalidMoment: if the database does not have this kind of moment.
        """
        if getattr(engine.dialect, "server_version_info", None) is None:
            engine.connect().close()
        dialects = past_dialect(engine.dialect, type(self.moment))
        dialects.database.accept(self.moment)
        return dialects

    def look(self, present: Connection, database: PastDatabase, before: bool | None) -> None:
        """Look whether the moment can be travelled to in a database, and is settled there.

        Args:
            present: within the transaction that reads.
            database: which database it is.
            before: what ``PastDatabase.before_begin`` gave.

        Raises:
            InvalidMoment: if it lies in the future.
        """
        database.check_future(present, self.moment)
        self._looks.append(database.settled(present, self.moment, before))
        self.settled = False if False in self._looks else None if None in self._looks else True

    def known(self, parameters: Any) -> Any:
        """Refuse parameters that stand for a value which is not in the history.

        Raises:
            NotAudited: if there is one.
        """
        for name, value in parameters.items():
            if isinstance(value, Marker | Digested):
                raise NotAudited(
                    f"the parameter {name!r} is {value}: the value is not in the history, so nothing can be found by it"
                )
        return parameters

    def require_present(self, tables: Iterable[TableClause]) -> None:
        """Refuse tables without history, unless they may be read as they are now.

        Raises:
            NotAudited: for one that may not.
        """
        for table in tables:
            if table in self._present or (not isinstance(table, sa.Table) and table.fullname in self._lightweight):
                continue
            raise NotAudited(
                f"table {table.fullname} has no history, so its past is not known: leave it out of the query, or allow "
                "its present to be read with as_of(..., present={...})"
            )

    def require_tracked(self, present: Connection, database: PastDatabase, tables: list[AuditedTable]) -> None:
        """Refuse tables that were not tracked yet at the moment.

        Raises:
            InvalidMoment: for one that was not; PrunedHistory where what it was then is pruned.
            CaptureMissing: if the database has no trail.
        """
        try:
            load_keys(present, tables)
            for trail in {audited.trail for audited in tables}:
                named = {audited.table.fullname: audited for audited in tables if audited.trail is trail}
                tracked = database.tracked(present, trail.column, list(named), self.moment)
                for name in named.keys() - tracked.keys():
                    self._require_recorded(present, named[name])
                for name in sorted(name for name, complete in tracked.items() if not complete):
                    self._refuse_incomplete(present, named[name])
                for name in sorted(named):
                    refuse_pruned(present, named[name], self.moment)
        except DBAPIError as error:
            if database.is_missing_table(error):
                raise CaptureMissing(
                    f"the database has no trail for table {tables[0].table.fullname}: "
                    f"create its tables with create_all() or a migration ({error.orig})"
                ) from error
            raise

    def formers(
        self, present: Connection, database: PastDatabase, tables: Iterable[AuditedTable]
    ) -> dict[AuditedTable, dict[str, Former]]:
        """Give the columns that had another type at the moment, by table and name, with what keeps their values.

        Raises:
            InvalidMoment: if one is of a table's key.
        """
        found = {}
        for trail in {audited.trail for audited in tables}:
            columns = trail.column
            named = {audited.table.fullname: audited for audited in tables if audited.trail is trail}
            retyped = sa.and_(columns.c.table_name.in_(list(named)), columns.c.event == "retype")
            for name in present.scalars(sa.select(columns.c.table_name).where(retyped).distinct()).all():
                rows = present.execute(names_of(named[name])).all()
                visible = database.written(present, columns, name, self.moment)
                formers = formers_at(present, named[name], rows, visible)
                if formers:
                    found[named[name]] = formers
        return found

    def _refuse_incomplete(self, present: Connection, audited: AuditedTable) -> NoReturn:
        """Refuse a table whose rows were still being carried in: it would seem to lack those that weren't yet."""
        columns = audited.trail.column
        done = sa.select(columns.c.recorded_at).where(
            columns.c.table_name == audited.table.fullname, columns.c.event == BASELINE_DONE
        )
        since = present.scalar(done.order_by(columns.c.id.desc()).limit(1))
        raise InvalidMoment(
            f"the baseline of table {audited.table.fullname} was not complete at {self.moment}, so rows would be "
            f"missing: "
            + (f"it is since {since.isoformat()}: give a later moment" if since else "finish it with sa-audit baseline")
        )

    def _require_recorded(self, present: Connection, audited: AuditedTable) -> None:
        """Let a table pass that the account of columns does not know, if it has a row recorded by the moment."""
        columns, history = audited.trail.column, audited.history
        known = sa.select(sa.func.min(columns.c.recorded_at)).where(columns.c.table_name == audited.table.fullname)
        since = present.scalar(known)
        if since is None:
            first = sa.select(history.c.audit_id).where(recorded_at(history, self.moment)).limit(1)
            if present.scalar(first) is not None:
                return
            since = present.scalar(sa.select(history.c.audit_at).order_by(history.c.audit_id).limit(1))
        raise InvalidMoment(
            f"table {audited.table.fullname} has no records as early as {self.moment}: "
            + (
                f"it is tracked since {since.isoformat()}: give a later moment"
                if since
                else "nothing is recorded of it"
            )
        )


def _tables_of(item: Any) -> list[TableClause]:
    mapper = sa.inspect(item, raiseerr=False) if isinstance(item, type) else item
    tables = list(getattr(mapper, "tables", ())) or [item]
    for table in tables:
        if not isinstance(table, TableClause):
            raise ConfigurationError(f"as_of(present=...) has {item!r} in it: give mapped classes or tables")
        if audited_of(table) is not None:
            raise ConfigurationError(
                f"as_of(present=...) names {table.fullname}, which is audited: its past is read, so leave it out"
            )
    return tables
