"""Events and reads as entries of the trail: where they stand, which of them a question is about, and their values.

Imports model, privacy, capture, errors and SQLAlchemy only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from ..capture.identity import identity_values
from ..capture.person_keys import PersonKeys
from ..errors import NotAudited
from ..model import Erased, Trail
from ..privacy.encryption import PersonKey, decrypted, event_place, key_name
from .change import Access, Event
from .rows import INFO, Source

Kind = Literal["change", "event", "read"]
CHUNK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What events and reads are asked for; None: anything.

    Attributes:
        table: the full name of the table that names the rows.
        identity: the text of a row's key.
        names: of classes.
        action: of events.
    """

    table: str | None = None
    identity: str | None = None
    names: frozenset[str] | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecordPlace:
    """The table of a trail in which events, or reads, stand.

    Attributes:
        trail: the trail.
        kind: ``"event"`` or ``"read"``.
        keys: the key's columns by the full name of the table that names the rows.
    """

    trail: Trail
    kind: Kind
    keys: Mapping[str, tuple[sa.Column[Any], ...]] = field(default_factory=dict)

    @property
    def table(self) -> sa.Table:
        """The table."""
        return self.trail.event if self.kind == "event" else self._of_reads(self.trail.access)

    @property
    def shown(self) -> sa.Table:
        """The table of the rows that reads have shown."""
        return self._of_reads(self.trail.access_row)

    def _of_reads(self, table: sa.Table | None) -> sa.Table:
        if table is None:
            raise NotAudited("no model of this MetaData records reads: set AuditOptions(reads=True) on one")
        return table

    def conditions(self, about: About) -> list[sa.ColumnElement[bool]]:
        """Give the conditions on the table for what is asked for."""
        table = self.table
        found: list[sa.ColumnElement[bool]] = []
        if about.table is not None:
            found.append(table.c.table_name == about.table)
        if about.names is not None:
            found.append(table.c.entity.in_(about.names))
        if about.action is not None and self.kind == "event":
            found.append(table.c.action == about.action)
        if about.identity is not None:
            found.append(self._names_row(about.identity))
        return found

    def _names_row(self, identity: str) -> sa.ColumnElement[bool]:
        if self.kind == "event":
            return self.table.c.identity == identity
        rows = self.shown
        shown = sa.select(rows.c.access_id).where(
            rows.c.table_name == self.table.c.table_name, rows.c.identity == identity
        )
        return self.table.c.audit_id.in_(shown)

    def place(self, number: int, chosen: sa.CTE, about: About) -> sa.Select[Any]:
        """Give the SELECT of its entries in some transactions, in the shape of those of history rows."""
        table = self.table
        flush = table.c.audit_flush if "audit_flush" in table.c else sa.null()
        return (
            sa.select(
                chosen.c.recorded_at,
                chosen.c.first,
                sa.func.coalesce(flush, sa.literal_column("0"), type_=sa.Integer()).label("flush"),
                table.c.audit_id,
                sa.literal(table.fullname, sa.Text()).label("history_table"),
                sa.literal_column(str(number), sa.Integer()).label("place"),
            )
            .select_from(table.join(chosen, chosen.c.id == table.c.audit_tx))
            .where(*self.conditions(about))
        )

    def transactions(self, about: About) -> sa.Select[Any]:
        """Give the SELECT of the first rows of all transactions with such entries."""
        entry = self.trail.transaction.alias("recorded")
        first = sa.func.coalesce(entry.c.first_id, entry.c.id)
        return sa.select(first).where(entry.c.id == self.table.c.audit_tx, *self.conditions(about))

    def entries(self, source: Source, ids: Sequence[int]) -> dict[int, Event | Access]:
        """Read entries by their ids."""
        found: dict[int, Event | Access] = {}
        for start in range(0, len(ids), CHUNK):
            condition = self.table.c.audit_id.in_(ids[start : start + CHUNK])
            found |= {entry.audit_id: entry for entry in self.read(source, [condition])}
        return found

    def read(self, source: Source, conditions: Iterable[sa.ColumnElement[bool]]) -> list[Any]:
        """Read the entries that meet some conditions, in their order."""
        table, entry = self.table, self.trail.transaction
        statement = (
            sa.select(*(entry.c[name] for name in INFO), *table.c)
            .select_from(table.join(entry, entry.c.id == table.c.audit_tx))
            .where(*conditions)
            .order_by(table.c.audit_at, table.c.audit_id)
        )
        rows = source.execute(statement, self.trail).all()
        own = [dict(zip(table.c.keys(), tuple(row)[len(INFO) :], strict=True)) for row in rows]
        infos = [source.info(self.trail, tuple(row)[: len(INFO)]) for row in rows]
        if self.kind == "event":
            keys = self._keys(source, own)
            return [self._event(info, values, keys) for info, values in zip(infos, own, strict=True)]
        shown = self._shown(source, [values["audit_id"] for values in own])
        return [self._access(info, values, shown) for info, values in zip(infos, own, strict=True)]

    def _keys(self, source: Source, own: Iterable[dict[str, Any]]) -> dict[str, PersonKey | None]:
        """Read the keys under which the data of some events is encrypted."""
        names = {key_name(values["data"]) for values in own if isinstance(values["data"], str)}
        return PersonKeys(source.connection, self.trail).named(names) if names else {}

    def _event(self, info: Any, values: dict[str, Any], keys: Mapping[str, PersonKey | None]) -> Event:
        return Event(
            action=values["action"],
            entity=values["entity"],
            table=values["table_name"],
            identity=self._identity(values["table_name"], values["identity"]),
            data=_data(values, keys),
            durable=bool(values["durable"]),
            recorded_at=info.recorded_at,
            transaction=info,
            audit_id=values["audit_id"],
        )

    def _access(self, info: Any, values: dict[str, Any], shown: Mapping[int, list[tuple[int, str]]]) -> Access:
        known = shown.get(values["audit_id"], [])
        return Access(
            entity=values["entity"],
            table=values["table_name"],
            rows=tuple(self._identity(values["table_name"], text) for _id, text in known),
            columns=tuple(values["columns"] or ()),
            statement=values["statement"],
            criteria=values["criteria"],
            identities=values["identities"],
            row_count=values["row_count"],
            recorded_at=info.recorded_at,
            transaction=info,
            audit_id=values["audit_id"],
            row_ids=tuple(row for row, _text in known),
        )

    def _shown(self, source: Source, ids: Sequence[int]) -> dict[int, list[tuple[int, str]]]:
        """Read the keys of the rows that some statements showed, with the ids under which they stand."""
        rows = self.shown
        found: dict[int, list[tuple[int, str]]] = {}
        for start in range(0, len(ids), CHUNK):
            statement = (
                sa.select(rows.c.access_id, rows.c.audit_id, rows.c.identity)
                .where(rows.c.access_id.in_(ids[start : start + CHUNK]))
                .order_by(rows.c.audit_id)
            )
            for row in source.execute(statement, self.trail):
                found.setdefault(row.access_id, []).append((row.audit_id, row.identity))
        return found

    def _identity(self, table: str | None, text: str | None) -> tuple[Any, ...]:
        if text is None:
            return ()
        return identity_values(self.keys.get(table or "", ()), text)


def _data(values: Mapping[str, Any], keys: Mapping[str, PersonKey | None]) -> Any:
    """Give the data of an event: what was given, decrypted where it is encrypted, or the marker ``Erased``."""
    data = values["data"]
    if not isinstance(data, str):
        return data
    key = keys[key_name(data)]
    place = event_place(values["audit_tx"], values["action"], values["table_name"], values["identity"])
    return Erased if key is None else json.loads(decrypted(key, [place], data))
