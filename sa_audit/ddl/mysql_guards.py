"""MariaDB: guards as triggers, epochs in place of transaction ids, and the state of a connection.

MariaDB has no transaction id that SQL can read: each entry share-locks the open row of ``audit_epoch`` and carries
its number, and so do the history rows under it.  Imports model and SQLAlchemy only.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import CaptureMissing
from ..model.history import Trail
from ..model.names import short_name
from .backend import KEY_LOST, KEY_MOVED, MESSAGE, Backend, SchemaMap
from .objects import TrailObject, spoken
from .pruning import allowed, is_pruned, place_of

IMPORTING = "sa_audit: an import of history is under way"


class MariaDBGuards(Backend):
    """What keeps a trail on MariaDB append-only."""

    texts_source = (
        "JSON_TABLE(:texts, '$[*]' COLUMNS (t VARCHAR(480) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$')) AS v"
    )

    def literal(self, text: str) -> str:
        """Escape the backslash as well, which MariaDB reads in literals."""
        return super().literal(text.replace("\\", "\\\\"))

    # -- guards ------------------------------------------------------------------

    def shared_objects(self, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> list[TrailObject]:
        """Give the epochs, the first one open; an epoch can only be closed, and stays."""
        name = self._beside(trail, schemas, "audit_epoch")
        refuse = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{MESSAGE}: {{}} on audit_epoch refused'"
        delete, update = (self._beside(trail, schemas, f"audit_epoch_guard_{event}") for event in ("delete", "update"))
        return [
            TrailObject(
                kind="table",
                schema=schemas.get(trail.transaction.schema, trail.transaction.schema),
                name="audit_epoch",
                create=(
                    f"CREATE TABLE IF NOT EXISTS {name} (epoch BIGINT NOT NULL PRIMARY KEY, closed TINYINT NOT NULL) "
                    "ENGINE=InnoDB COMMENT='sa_audit: epochs of writing transactions'",
                    f"INSERT IGNORE INTO {name} (epoch, closed) VALUES (1, 0)",
                    f"CREATE TRIGGER IF NOT EXISTS {delete} BEFORE DELETE ON {name} FOR EACH ROW\n"
                    f"{refuse.format('DELETE')}",
                    f"CREATE TRIGGER IF NOT EXISTS {update} BEFORE UPDATE ON {name} FOR EACH ROW\n"
                    "IF NEW.epoch <> OLD.epoch OR NEW.closed < OLD.closed THEN\n"
                    f"    {refuse.format('UPDATE')};\nEND IF",
                ),
                drop=(f"DROP TABLE IF EXISTS {name}",),
                definition="",
                shared=True,
            )
        ]

    def guard_objects(
        self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None
    ) -> list[TrailObject]:
        """Give guards of UPDATE and DELETE (REPLACE is a DELETE), and what fits an inserted row to its transaction."""
        if table is trail.person_key:
            return self._key_guards(table, trail, schemas)
        bodies = {}
        for event in ("UPDATE", "DELETE"):
            message = f"{MESSAGE}: {event} on {table.name} refused"[:128].replace("'", "''")
            bodies[event] = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'"
        if is_pruned(table):
            bodies["DELETE"] = self._prune_body(table, trail, schemas, default_schema, bodies["DELETE"])
        if table is trail.transaction:
            bodies["INSERT"] = self._transaction_body(trail, schemas)
        elif table not in trail.fixed:
            bodies["INSERT"] = self._history_body(table, trail, schemas, default_schema)
        return [self._guard(table, schemas, event, body) for event, body in bodies.items()]

    def _key_guards(self, table: sa.Table, trail: Trail, schemas: SchemaMap) -> list[TrailObject]:
        """Let a key be wrapped anew, and destroyed once that is recorded."""
        refuse = "    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{}';\nEND IF"
        moved = "IF BINARY NEW.name <> BINARY OLD.name OR BINARY NEW.subject <> BINARY OLD.subject THEN\n"
        events = self._beside(trail, schemas, "audit_key")
        lost = f"IF NOT EXISTS (SELECT 1 FROM {events} AS k WHERE k.name = OLD.name AND k.event = 'destroyed') THEN\n"
        bodies = {"UPDATE": moved + refuse.format(KEY_MOVED), "DELETE": lost + refuse.format(KEY_LOST)}
        return [self._guard(table, schemas, event, body) for event, body in bodies.items()]

    def _guard(self, table: sa.Table, schemas: SchemaMap, event: str, body: str) -> TrailObject:
        quoted = self._trigger(table, schemas, event)
        return TrailObject(
            kind="trigger",
            schema=schemas.get(table.schema, table.schema),
            table=table.name,
            name=short_name(f"{table.name}_guard_{event.lower()}"),
            create=(
                f"CREATE TRIGGER {quoted} BEFORE {event} ON {self.table_name(table, schemas)} FOR EACH ROW\n{body}",
            ),
            drop=(f"DROP TRIGGER IF EXISTS {quoted}",),
            definition=f"BEFORE {event} {spoken(body)}",
        )

    def unguards(self, table: sa.Table, schemas: SchemaMap, default_schema: str | None) -> list[str]:
        """Drop the three triggers."""
        events = ("UPDATE", "DELETE", "INSERT")
        return [f"DROP TRIGGER IF EXISTS {self._trigger(table, schemas, event)}" for event in events]

    def _trigger(self, table: sa.Table, schemas: SchemaMap, event: str) -> str:
        schema = schemas.get(table.schema, table.schema)
        name = self.quote(short_name(f"{table.name}_guard_{event.lower()}"))
        return f"{self.quote(schema)}.{name}" if schema else name

    def _beside(self, trail: Trail, schemas: SchemaMap, name: str) -> str:
        schema = schemas.get(trail.transaction.schema, trail.transaction.schema)
        prefix = f"{self.quote(schema)}." if schema else ""
        return f"{prefix}{self.quote(name)}" if name else prefix

    def import_guard(self, trail: Trail, schemas: SchemaMap, connection_id: int) -> TrailObject:
        """Give the guard of inserted entries while history is imported: one connection may date them."""
        mine = (
            f"IF CONNECTION_ID() <> {connection_id} THEN\n        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = "
            f"'{IMPORTING}: run sa-audit import-continuum again if it was broken off';\n    END IF;\n    "
        )
        body = self._transaction_body(trail, schemas)
        begin, clock = "SELECT max(epoch) INTO open_epoch", "    SET NEW.recorded_at = UTC_TIMESTAMP(6);\n"
        if body.count(begin) != 1 or body.count(clock) != 1:
            raise CaptureMissing(
                "the guard of entries is not the one that an import knows how to open: mend the library"
            )
        return self._guard(trail.transaction, schemas, "INSERT", body.replace(begin, mine + begin).replace(clock, ""))

    def _transaction_body(self, trail: Trail, schemas: SchemaMap) -> str:
        """Give the body of the guard; the epoch is looked for by SELECT INTO, since SET would lock the gap behind it.

        The sealer could not make the next epoch while any writer is open.  A further entry has its first one's epoch,
        which that one's transaction keeps open: a closed one, or another account's, is none that is under way.
        """
        epochs, table = self._beside(trail, schemas, "audit_epoch"), self.table_name(trail.transaction, schemas)
        return f"""BEGIN
    DECLARE open_epoch BIGINT;
    DECLARE is_closed TINYINT DEFAULT 1;
    DECLARE first_at DATETIME(6);
    SELECT max(epoch) INTO open_epoch FROM {epochs};
    IF NEW.first_id IS NOT NULL THEN
        SELECT max(db_txid), max(recorded_at) INTO open_epoch, first_at FROM {table}
            WHERE id = NEW.first_id AND first_id IS NULL AND BINARY db_user <=> BINARY USER();
        IF open_epoch IS NULL THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: the first entry is not of this transaction';
        END IF;
    END IF;
    WHILE is_closed DO
        SET is_closed = (SELECT closed FROM {epochs} WHERE epoch = open_epoch LOCK IN SHARE MODE);
        IF is_closed IS NULL THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: there is no open epoch';
        END IF;
        IF is_closed AND NEW.first_id IS NOT NULL THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: the transaction of the first entry has ended';
        END IF;
        SET open_epoch = open_epoch + is_closed;
    END WHILE;
    SET NEW.db_txid = open_epoch;
    SET NEW.db_user = USER();
    SET NEW.db_role = CURRENT_ROLE();
    SET NEW.recorded_at = UTC_TIMESTAMP(6);
    IF NEW.first_id IS NOT NULL THEN
        SET NEW.recorded_at = first_at;
    END IF;
END"""

    def _history_body(self, history: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None) -> str:
        table = self.table_name(trail.transaction, schemas)
        own, other = (schemas.get(entry.schema, entry.schema) for entry in (trail.transaction, history))
        if own is None and other is not None and default_schema is not None:
            table = f"{self.quote(default_schema)}.{table}"  # a trigger looks for names in its own table's schema
        return f"""BEGIN
    SET NEW.audit_txid = (
        SELECT db_txid FROM {table} WHERE id = NEW.audit_tx AND recorded_at = NEW.audit_at
    );
    IF NEW.audit_txid IS NULL THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sa_audit: history row without its transaction';
    END IF;
END"""

    def _prune_body(
        self, table: sa.Table, trail: Trail, schemas: SchemaMap, default_schema: str | None, refuse: str
    ) -> str:
        own, other = (schemas.get(entry.schema, entry.schema) for entry in (trail.transaction, table))
        home = f"{self.quote(default_schema)}." if own is None and other is not None and default_schema else ""
        names = (f"{home}{self._beside(trail, schemas, name)}" for name in ("audit_prune", "audit_checkpoint"))
        passing = allowed(self.literal(place_of(table, schemas)), *names, indent="    ")
        return f"BEGIN\n    IF NOT {passing} THEN\n        {refuse};\n    END IF;\nEND"

    # -- state ---------------------------------------------------------------------

    def in_autocommit(self, connection: Connection) -> bool:
        """Ask the driver's connection, since an engine's isolation level is not in the execution options."""
        driver: Any = connection.connection.driver_connection
        if hasattr(driver, "get_autocommit"):
            return bool(driver.get_autocommit())
        return bool(getattr(driver, "autocommit", False))
