"""PostgreSQL: guards in PL/pgSQL, and the state of a connection.

Imports model and SQLAlchemy only.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..model.history import AUDITED, AuditedTable, Trail
from .backend import Backend, SchemaMap, Target, internal
from .objects import TrailObject, spoken
from .postgresql_functions import (
    drop_unused,
    function_definition,
    guard_function,
    history_function,
    person_key_function,
    transaction_function,
    trigger_definition,
)
from .postgresql_partitions import AHEAD, making, partitions_function, partitions_object, stem_of, unguarded
from .pruning import PRUNE_GUARD, is_pruned, prune_guard_function

ORDINARY: Final = (
    "-- not ENABLE ALWAYS: rows that a replica or a restore applies are another transaction's, and stay as they came\n"
)
"""Why what fits inserted rows to their transaction does not run under ``session_replication_role=replica``."""


class PostgreSQLGuards(Backend):
    """What keeps a trail on PostgreSQL append-only."""

    # -- guards ------------------------------------------------------------------

    def shared_objects(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give the guard functions, versioned by name, in the schema of the trail."""
        real = self._real_schema(trail.transaction, schemas, default_schema)
        schema = self.quote(real)
        table = f"{schema}.{self.quote('audit_transaction')}"
        texts = {
            "sa_audit_guard_v1": guard_function(schema),
            "sa_audit_transaction_v1": transaction_function(schema, table),
            "sa_audit_history_v1": history_function(schema, table),
        }
        if trail.prune is not None:
            names = (f"{schema}.{self.quote(name)}" for name in ("audit_prune", "audit_checkpoint"))
            texts[PRUNE_GUARD] = prune_guard_function(schema, *names)
        if trail.key is not None:
            texts["sa_audit_person_key_v1"] = person_key_function(schema)
        found = [
            TrailObject(
                kind="function",
                schema=real,
                name=name,
                create=(text,),
                drop=(drop_unused(f"{schema}.{name}()"),),
                definition=function_definition(spoken(text)),
                shared=True,
            )
            for name, text in texts.items()
        ]
        return [*found, *self.partition_objects(trail, schemas, default_schema)]

    def partition_objects(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give the function that makes partitions, where a history has any."""
        if not any(audited.partitioned for audited in trail.audited.values()):
            return []
        real = self._real_schema(trail.transaction, schemas, default_schema)
        names = [self.literal(f"{self.quote(real)}.{name}") for name in ("sa_audit_guard_v1", "sa_audit_history_v1")]
        return [partitions_function(real, self.quote(real), *names)]

    def make_partitions(
        self, audited: AuditedTable, schemas: SchemaMap, default_schema: str | None, months: int = AHEAD
    ) -> str:
        """Give the statement that makes what is missing of the partitions of a history, and guards all of them."""
        history = audited.history
        return making(
            self._schema(audited.trail.transaction, schemas, default_schema),
            self._named(history, schemas, default_schema),
            self.literal(stem_of(history.name)),
            months,
        )

    def _named(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> str:
        return self.literal(self._qualified(table, schemas, default_schema).replace("\\:", ":"))

    def guard_objects(
        self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None
    ) -> list[TrailObject]:
        """Give row and truncate guards (``ENABLE ALWAYS``), and what fits an inserted row to its transaction."""
        refusing = PRUNE_GUARD if is_pruned(table) else "sa_audit_guard_v1"
        keeper = "sa_audit_person_key_v1" if table is trail.person_key else refusing
        row = ("BEFORE UPDATE OR DELETE", "FOR EACH ROW", keeper, 27)
        truncate = ("BEFORE TRUNCATE", "FOR EACH STATEMENT", "sa_audit_guard_v1", 34)
        objects = [
            self._trigger("sa_audit_guard_row", table, trail, (schemas, default_schema), *row, always=True),
            self._trigger("sa_audit_guard_truncate", table, trail, (schemas, default_schema), *truncate, always=True),
        ]
        if table is trail.transaction:
            entry = ("BEFORE INSERT", "FOR EACH ROW", "sa_audit_transaction_v1", 7)
            objects.append(self._trigger("sa_audit_insert", table, trail, (schemas, default_schema), *entry))
        elif _is_captured(table):
            other = ("BEFORE INSERT", "FOR EACH ROW WHEN (pg_trigger_depth() < 1)", "sa_audit_history_row_v1", 7)
            objects.append(self._trigger("sa_audit_insert", table, trail, (schemas, default_schema), *other))
        elif table not in (*trail.fixed, *trail.secrets_tables):
            rows = ("AFTER INSERT", "FOR EACH STATEMENT", "sa_audit_history_v1", 4)
            objects.append(
                self._trigger("sa_audit_insert", table, trail, (schemas, default_schema), *rows, new_table="inserted")
            )
        audited = table.info.get(AUDITED)
        if isinstance(audited, AuditedTable) and audited.partitioned:
            create = self.make_partitions(audited, schemas, default_schema)
            objects.append(partitions_object(self._real_schema(table, schemas, default_schema), table.name, create))
        return objects

    def _trigger(
        self,
        name: str,
        table: sa.Table,
        trail: Trail,
        place: tuple[SchemaMap, str | None],
        when: str,
        each: str,
        function: str,
        code: int,
        *,
        always: bool = False,
        new_table: str | None = None,
    ) -> TrailObject:
        """Give a trigger; ``code`` is its ``tgtype`` in the catalog."""
        on = self._qualified(table, *place)
        real = self._real_schema(trail.transaction, *place)
        rows = f" REFERENCING NEW TABLE AS {new_table}" if new_table else ""
        why = "" if always else ORDINARY
        called = f"{self.quote(real)}.{function}()"
        create = [f"{why}CREATE TRIGGER {name} {when} ON {on}{rows}\n{each} EXECUTE FUNCTION {called}"]
        if always:
            create.append(f"ALTER TABLE {on} ENABLE ALWAYS TRIGGER {name}")
        return TrailObject(
            kind="trigger",
            schema=self._real_schema(table, *place),
            table=table.name,
            name=name,
            create=tuple(create),
            drop=(f"DROP TRIGGER IF EXISTS {name} ON {on}",),
            definition=trigger_definition(code, "A" if always else "O", f"{real}.{function}", new_table),
        )

    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the three triggers, and those of partitions."""
        name = self._qualified(table, schemas, default_schema)
        triggers = ("sa_audit_guard_row", "sa_audit_guard_truncate", "sa_audit_insert")
        dropping = [f"DROP TRIGGER IF EXISTS {trigger} ON {name}" for trigger in triggers]
        audited = table.info.get(AUDITED)
        if isinstance(audited, AuditedTable) and audited.partitioned:
            dropping.append(unguarded(self._named(table, schemas, default_schema)))
        return dropping

    def _real_schema(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> str:
        return schemas.get(table.schema, table.schema) or default_schema or "public"

    def _schema(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> str:
        return self.quote(self._real_schema(table, schemas, default_schema))

    def _qualified(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> str:
        return f"{self._schema(table, schemas, default_schema)}.{self.quote(table.name)}"

    # -- state ---------------------------------------------------------------------

    def in_autocommit(self, connection: Connection) -> bool:
        """Ask the driver's connection, since an engine's isolation level is not in the execution options."""
        return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))

    def lock_table(self, connection: Connection, target: Target) -> None:
        """Wait for whoever holds SHARE locks: what he sees at his clock is then what the past shows at it."""
        name = self.table_name(target.audited.table, target.schemas)
        internal(connection, sa.text(f"LOCK TABLE {name} IN ROW EXCLUSIVE MODE"))


def _is_captured(table: sa.Table) -> bool:
    audited = table.info.get(AUDITED)
    return isinstance(audited, AuditedTable) and audited.by_trigger
