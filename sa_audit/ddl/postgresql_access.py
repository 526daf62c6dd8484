"""PostgreSQL: a read is recorded by one statement, which commits by itself, in one round trip.

The statement is compiled once and handed to the driver, which prepares it.  Imports model, SQLAlchemy, and of ddl the
capture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from ..model.history import Trail
from .postgresql_capture import PostgreSQLCapture
from .postgresql_records import ACCESS_COLUMNS, writes_by_functions
from .values import CLAIMS, AccessRecord, Target

_INTEGERS: Final = ("bigint",)


class PostgreSQLAccess(PostgreSQLCapture):
    """What records reads on PostgreSQL at once."""

    texts_source: ClassVar[str] = "(SELECT json_array_elements_text(CAST(:texts AS json)) AS t) AS v"

    def utc_day(self, moment: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Take the moment, which PostgreSQL would show in the session's time zone, to UTC first."""
        return sa.cast(sa.func.timezone(sa.literal_column("'UTC'"), moment), sa.Date())

    def writes_accesses_at_once(self, trail: Trail) -> bool:
        """It does unless the application has no right to insert, and the functions of the owner stand in between."""
        return not writes_by_functions(trail)

    def accesses_statement(
        self, target: Target, claims: Mapping[str, Any], accesses: Sequence[AccessRecord]
    ) -> tuple[str, Any]:
        """Give the statement that inserts entry, reads and rows."""
        parts = tuple(bool(access.texts) for access in accesses)
        memo, cache_key = target.audited.memo, (self, "accesses", parts, tuple(target.schemas.items()))
        compiled = memo.get(cache_key)
        if compiled is None:
            compiled = memo[cache_key] = self._insertions(target, parts).compile(dialect=self.dialect)
        values: dict[str, Any] = {**claims, "context": _text(claims["context"])}
        for number, access in enumerate(accesses):
            for name, type_ in ACCESS_COLUMNS.items():
                value = access.values[name]
                values[f"{name}_{number}"] = _text(value) if type_ == "json" else value
            if access.texts:
                values[f"texts_{number}"] = json.dumps(access.texts, ensure_ascii=False)
        given = tuple(values[name] for name in compiled.positiontup) if compiled.positional else values
        return compiled.string, given

    def _insertions(self, target: Target, parts: Sequence[bool]) -> Any:
        """Give the statement for so many reads; ``parts`` says of each whether it names rows."""
        trail: Any = target.trail
        transaction, access, shown = (
            self.table_name(table, target.schemas) for table in (trail.transaction, trail.access, trail.access_row)
        )
        claims = ", ".join(f"CAST(:{name} AS {'json' if name == 'context' else 'text'})" for name in CLAIMS)
        sql = [f"e AS (INSERT INTO {transaction} ({', '.join(CLAIMS)}) VALUES ({claims}) RETURNING id, recorded_at)"]
        names = [*CLAIMS]
        for number, has_rows in enumerate(parts):
            said = ", ".join(f"CAST(:{name}_{number} AS {type_})" for name, type_ in ACCESS_COLUMNS.items())
            names += [f"{name}_{number}" for name in ACCESS_COLUMNS]
            sql.append(
                f"a{number} AS (INSERT INTO {access} (audit_tx, audit_at, {', '.join(ACCESS_COLUMNS)}) "
                f"SELECT e.id, e.recorded_at, {said} FROM e RETURNING audit_id)"
            )
            if has_rows:
                names.append(f"texts_{number}")
                source = self.texts_source.replace(":texts", f":texts_{number}")
                sql.append(
                    f"r{number} AS (INSERT INTO {shown} (audit_tx, audit_at, access_id, table_name, identity) "
                    f"SELECT e.id, e.recorded_at, a{number}.audit_id, CAST(:table_name_{number} AS text), v.t "
                    f"FROM e CROSS JOIN a{number} CROSS JOIN {source})"
                )
        ids = ", ".join(f"(SELECT audit_id FROM a{number}) AS i{number}" for number in range(len(parts)))
        return sa.text(f"WITH {', '.join(sql)} SELECT {ids}").bindparams(*map(_parameter, names))


def _parameter(name: str) -> sa.BindParameter[Any]:
    type_ = ACCESS_COLUMNS.get(name.rpartition("_")[0])
    return sa.bindparam(name, type_=sa.BigInteger() if type_ in _INTEGERS else sa.Text())


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
