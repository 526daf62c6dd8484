"""PostgreSQL's catalog: relations, triggers, functions, rules, policies, inheritance, rights.

Imports ddl, model and SQLAlchemy only.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl import TrailObject
from ..ddl.postgresql_capture_text import ROW_TRIGGER
from ..ddl.postgresql_functions import catalog_definition, trigger_definition, trigger_function
from ..ddl.postgresql_partitions import NAME, PARTITIONED, partitions_definition
from ..ddl.postgresql_privileges import changers_query
from ..ddl.privileges import Right, Securable, own_schema, privileges_for, securables
from ..model.configuration import Roles
from ..model.history import AUDITED, AuditedTable, Trail
from .level import Finding
from .live import CatalogReader, Live, LiveTable, ObjectKey, Place
from .partitions import partition_findings
from .privileges import Held, beyond, lacking, read_rights

_FORMS: Final = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}


class PostgreSQLReader(CatalogReader):
    """The catalog of a PostgreSQL database."""

    def read(self, connection: Connection, tables: Mapping[Place, sa.Table], data: set[Place]) -> Live:
        """Read everything of the schemas in a few queries, however many tables there are."""
        live = Live()
        schemas = {"schemas": sorted({str(place[0]) for place in (*tables, *data)})}
        for row in connection.execute(_RELATIONS, schemas):
            form = "unlogged table" if row.persistence == "u" else _FORMS[row.kind]
            live.tables[row.schema, row.name] = LiveTable(form, frozenset(row.columns or ()))
        for row in connection.execute(_TRIGGERS, schemas):
            function = f"{row.function_schema}.{row.function}"
            definition = trigger_definition(row.code, row.enabled, function, row.new_table) + _limits(row)
            live.take(("trigger", row.schema, row.table_name, row.name), definition, row.mark)
        for row in connection.execute(_FUNCTIONS, schemas):
            security = "definer" if row.definer else "invoker"
            text = catalog_definition(row.body, security, list(row.settings or ()))
            live.take(("function", row.schema, None, row.name), text, row.mark)
        for row in connection.exec_driver_sql(PARTITIONED):
            definition = partitions_definition(has_default=row.has_default)
            live.objects["partitions", row.schema, row.name, NAME] = definition
        names = {"names": sorted({name for _schema, name in tables}), **schemas}
        for row in connection.execute(_ODD, names):
            if _concerns(row, tables):
                live.findings.append(self._odd(row))
                shadow = row.kind == "shadowing-table"
                place = (row.kind, row.schema, None if shadow else row.name, row.name if shadow else row.what)
                live.oddities[place] = row.what
        audited = {"names": sorted({name for _schema, name in data}), **schemas}
        for row in connection.execute(_UNCAPTURED, audited):
            if (row.schema, row.name) in data:
                live.findings.append(self._odd(row))
                live.oddities[row.kind, row.schema, row.name, row.what] = row.what
        return live

    def _odd(self, row: sa.Row[tuple[object, ...]]) -> Finding:
        place = f"{row.schema}.{row.name}"
        return Finding(kind=row.kind, place=f"{place}: {row.what}", message=_ODDITIES[row.kind], blocks=1)

    def fires_after(self, definition: str) -> bool:
        """Read ``tgtype``: neither BEFORE (2) nor INSTEAD OF (64)."""
        return not int(definition.removeprefix("type ").partition(",")[0]) & 66

    def partitions(self, connection: Connection, trail: Trail) -> list[Finding]:
        """Read the partitions of the histories that have any."""
        return list(partition_findings(connection, trail, dt.datetime.now(dt.UTC)))

    # -- fingerprint -------------------------------------------------------------------

    def accepted(self, entry: TrailObject) -> frozenset[str]:
        """Let the trigger of inserted history rows be that of either way of capture."""
        if entry.name != "sa_audit_insert" or trigger_function(entry.definition).endswith(".sa_audit_transaction_v1"):
            return super().accepted(entry)
        schema = trigger_function(entry.definition).rpartition(".")[0]
        return frozenset(
            {
                trigger_definition(7, "O", f"{schema}.sa_audit_history_row_v1", None),
                trigger_definition(4, "O", f"{schema}.sa_audit_history_v1", "inserted"),
            }
        )

    def parts(self, connection: Connection, tables: Collection[Place]) -> set[Place]:
        """Ask for the partitions, at every level."""
        return {(row.schema, row.name) for row in connection.execute(_PARTS, _named(tables))}

    def further(self, connection: Connection, live: Live, tables: Mapping[Place, sa.Table]) -> dict[ObjectKey, str]:
        """Read columns, owners and rights, and the ids by which a relation is told from a copy of it."""
        facts: dict[ObjectKey, str] = {}
        for row in connection.execute(_COLUMNS, _named(tables)):
            if (row.schema, row.name) in tables:
                facts["column", row.schema, row.name, row.column_name] = row.type
        for row in connection.execute(_OWNERS, _named(tables)):
            if (row.schema, row.name) in tables:
                facts["owner", row.schema, None, row.name] = row.owner
                facts["identity", row.schema, None, row.name] = row.identity
        for row in connection.execute(_FUNCTION_OWNERS, _named(tables)):
            facts["owner", row.schema, None, f"{row.name}()"] = row.owner
            facts["rights", row.schema, None, f"{row.name}()"] = row.rights
        return facts

    # -- rights ------------------------------------------------------------------------

    def rights(self, connection: Connection, trail: Trail, tables: list[sa.Table]) -> list[Finding]:
        """Compare owners and rights with those of the configured roles, and name who could change the trail."""
        roles = trail.configuration.roles
        if roles is None:
            return [
                Finding(
                    kind="no-roles",
                    place="configure(roles=None)",
                    message="no owner apart from the application is configured: give configure(..., roles=Roles())",
                    blocks=2,
                    drift=False,
                ),
            ]
        default = self.default_schema or "public"
        privileges = privileges_for(self.dialect)
        objects = [entry for entry in self.expected(trail, []) if entry.kind == "function"]
        entries = securables(privileges, tables, objects, roles, default)
        entries.append(_sequence(trail, entries, roles, default))
        if trail.configuration.schema is not None:
            entries.append(own_schema(trail.configuration.schema, roles))
        known = read_rights(connection, {entry.schema or default for entry in entries})
        found = [finding for entry in entries for finding in _compared(entry, known, roles)]
        return [*found, *self._changers(connection, entries, roles)]

    def _changers(self, connection: Connection, entries: list[Securable], roles: Roles) -> list[Finding]:
        names = [f"{entry.schema}.{entry.name}" for entry in entries if entry.kind in ("table", "sequence")]
        if not names or not connection.scalar(_ROLE, {"name": roles.owner}):
            return []
        quoted = [
            f"{self.backend.literal(self.backend.quote(str(entry.schema)) + '.' + self.backend.quote(entry.name))}"
            for entry in entries
            if entry.kind in ("table", "sequence")
        ]
        query = changers_query(f"ARRAY[{', '.join(quoted)}]::regclass[]", roles, self.backend.literal)
        rows = connection.exec_driver_sql(query.replace("\\:", ":").replace("%", "%%")).all()
        by_role: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            by_role.setdefault((row.role, row.held), []).append(str(row.place))
        return [
            Finding(
                kind="could-change",
                place=role,
                message=f"the role could change the trail: {held} on {', '.join(places[:3])}"
                + (f" and {len(places) - 3} more" if len(places) > 3 else ""),
                blocks=2,
            )
            for (role, held), places in sorted(by_role.items())
        ]


def _sequence(trail: Trail, entries: list[Securable], roles: Roles, default: str) -> Securable:
    schema = trail.sequence.schema or default
    return Securable("sequence", schema, trail.sequence.name, frozenset({Right(roles.writer, "USAGE")}))


def _compared(entry: Securable, known: Mapping[tuple[str, str, str], Held], roles: Roles) -> list[Finding]:
    held = known.get((entry.kind, entry.schema or "public", entry.name))
    if held is None:
        return []  # that it is missing is said elsewhere
    found = []
    if held.owner != roles.owner:
        text = f"the {entry.kind} has another owner, who can do everything with it"
        found.append(
            Finding(kind="owner", place=entry.label, message=text, expected=roles.owner, got=held.owner, blocks=2)
        )
    for kind, rights, text in (
        ("missing-right", lacking(entry, held, roles), "a right that a role needs is missing"),
        ("excess-right", beyond(entry, held, roles), "a right that nobody should have"),
    ):
        for right in sorted(rights, key=str):
            what = f"{right.privilege}{f' ({right.column})' if right.column else ''} of {right.grantee}"
            found.append(Finding(kind=kind, place=entry.label, message=f"{text}: {what}", got=what, blocks=2))
    return found


def _limits(row: sa.Row[tuple[object, ...]]) -> str:
    """Give what keeps a trigger from firing for each row: columns, or a condition that is not the library's own."""
    limits = f", columns {row.columns}" if row.columns else ""
    if row.whole is not None:
        found = _CONDITION.search(row.whole)
        condition = found[1] if found is not None else row.whole
        if (row.function, condition) != OWN_CONDITION:
            limits += f", condition {condition}"
    return limits


def _concerns(row: sa.Row[tuple[object, ...]], tables: Mapping[Place, sa.Table]) -> bool:
    if row.kind == "unguarded-partition" and (row.schema, row.name) in tables:
        audited = tables[row.schema, row.name].info.get(AUDITED)
        return not (isinstance(audited, AuditedTable) and audited.partitioned)  # those are looked at in detail
    if row.kind != "shadowing-table":
        return (row.schema, row.name) in tables
    return (row.schema, row.name) not in tables and any(
        name == row.name and table.schema is None for (_schema, name), table in tables.items()
    )


_ODDITIES: Final = {
    "rule": "a rule on the trail: what is written may go elsewhere; drop it",
    "policy": "row security on the trail: rows may be hidden or refused; disable it",
    "inheritance": "a child of a table of the trail: its rows look like history and have no guards",
    "parent": "a table of the trail is the child of another table: what is done to that reaches its rows",
    "unguarded-partition": "a partition without the library's TRUNCATE guard, or whose guards are not ENABLE ALWAYS",
    "uncaptured-partition": "a partition or child of an audited table without its capture trigger, or where it is not "
    "ENABLE ALWAYS: what is changed there is not recorded",
    "shadowing-table": "a table of that name in another schema: with another search_path, changes are recorded there",
}

OWN_CONDITION: Final = ("sa_audit_history_row_v1", "(pg_trigger_depth() < 1)")
"""The condition of the only trigger that has one: history rows that a trigger writes are its own to fit."""
_CONDITION: Final = re.compile(r"(?s) WHEN \((.*)\) EXECUTE ")
_ROLE: Final = sa.text("SELECT 1 FROM pg_roles WHERE rolname = :name")


def _in_schemas(sql: str) -> sa.TextClause:
    return sa.text(sql).bindparams(sa.bindparam("schemas", type_=sa.ARRAY(sa.Text())))


_RELATIONS: Final = _in_schemas(
    "SELECT n.nspname AS schema, c.relname AS name, CAST(c.relkind AS text) AS kind,"
    " CAST(c.relpersistence AS text) AS persistence, array_agg(CAST(a.attname AS text)) AS columns"
    " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = ANY (:schemas)"
    " GROUP BY n.nspname, c.relname, c.relkind, c.relpersistence"
)

_TRIGGERS: Final = _in_schemas(
    "SELECT n.nspname AS schema, c.relname AS table_name, t.tgname AS name, CAST(t.tgtype AS integer) AS code,"
    " CASE WHEN c.relhastriggers THEN CAST(t.tgenabled AS text) ELSE 'D' END AS enabled,"
    " CAST(t.tgnewtable AS text) AS new_table,"
    " f.nspname AS function_schema, p.proname AS function, CAST(t.xmin AS text) AS mark,"
    " CAST(t.tgattr AS text) AS columns, CASE WHEN t.tgqual IS NOT NULL THEN pg_get_triggerdef(t.oid) END AS whole"
    " FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS f ON f.oid = p.pronamespace"
    " WHERE NOT t.tgisinternal AND n.nspname = ANY (:schemas)"
)

_FUNCTIONS: Final = _in_schemas(
    "SELECT n.nspname AS schema, p.proname AS name, p.prosrc AS body, p.prosecdef AS definer, p.proconfig AS settings,"
    " CAST(p.xmin AS text) AS mark"
    " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
    " WHERE starts_with(p.proname, 'sa_audit_') AND p.prokind = 'f' AND n.nspname = ANY (:schemas)"
)

_ODD: Final = sa.text(
    "WITH c AS (SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relrowsecurity, c.relkind FROM pg_class AS c"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = ANY (:schemas) AND c.relname = ANY (:names))"
    " SELECT 'rule' AS kind, c.schema, c.name, CAST(r.rulename AS text) AS what FROM c JOIN pg_rewrite AS r"
    " ON r.ev_class = c.oid AND r.rulename <> '_RETURN'"
    " UNION ALL SELECT 'policy', c.schema, c.name, 'row level security' FROM c WHERE c.relrowsecurity"
    " UNION ALL SELECT 'policy', c.schema, c.name, CAST(p.polname AS text) FROM c JOIN pg_policy AS p"
    " ON p.polrelid = c.oid"
    " UNION ALL SELECT 'inheritance', c.schema, c.name, CAST(CAST(i.inhrelid AS regclass) AS text) FROM c"
    " JOIN pg_inherits AS i"
    " ON i.inhparent = c.oid AND c.relkind <> 'p'"
    " UNION ALL SELECT 'parent', c.schema, c.name, CAST(CAST(i.inhparent AS regclass) AS text) FROM c"
    " JOIN pg_inherits AS i"
    " ON i.inhrelid = c.oid"
    " UNION ALL SELECT 'unguarded-partition', c.schema, c.name, CAST(p.relid AS text) FROM c"
    " CROSS JOIN LATERAL pg_partition_tree(c.oid) AS p WHERE c.relkind = 'p' AND p.level > 0 AND p.isleaf AND ("
    "SELECT count(*) FROM pg_trigger AS t JOIN pg_class AS o ON o.oid = t.tgrelid AND o.relhastriggers"
    " WHERE t.tgrelid = p.relid AND t.tgenabled = 'A'"
    " AND t.tgname IN ('sa_audit_guard_row', 'sa_audit_guard_truncate')) < 2"
    " UNION ALL SELECT 'shadowing-table', n.nspname, s.relname, CASE WHEN EXISTS (SELECT FROM pg_trigger AS t"
    " WHERE t.tgrelid = s.oid AND t.tgname = 'sa_audit_guard_row') THEN 'a guarded table' ELSE 'table' END"
    " FROM pg_class AS s"
    " JOIN pg_namespace AS n ON n.oid = s.relnamespace WHERE s.relkind IN ('r', 'p', 'v', 'm', 'f')"
    " AND s.relname = ANY (:names)"
).bindparams(sa.bindparam("schemas", type_=sa.ARRAY(sa.Text())), sa.bindparam("names", type_=sa.ARRAY(sa.Text())))

_UNCAPTURED: Final = sa.text(
    "WITH RECURSIVE c AS (SELECT c.oid, n.nspname AS schema, c.relname AS name, t.tgfoid FROM pg_class AS c"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    f" JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = '{ROW_TRIGGER}'"
    " WHERE n.nspname = ANY (:schemas) AND c.relname = ANY (:names)),"
    " below AS (SELECT c.oid AS top, i.inhrelid AS oid FROM c JOIN pg_inherits AS i ON i.inhparent = c.oid"
    " UNION SELECT b.top, i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.oid)"
    " SELECT 'uncaptured-partition' AS kind, c.schema, c.name, CAST(CAST(b.oid AS regclass) AS text) AS what FROM c"
    " JOIN below AS b ON b.top = c.oid JOIN pg_class AS p ON p.oid = b.oid AND p.relkind <> 'p'"
    " WHERE NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = p.oid AND t.tgfoid = c.tgfoid"
    f" AND t.tgname = '{ROW_TRIGGER}' AND t.tgenabled = 'A' AND t.tgtype = 29 AND t.tgqual IS NULL"
    " AND p.relhastriggers)"
).bindparams(sa.bindparam("schemas", type_=sa.ARRAY(sa.Text())), sa.bindparam("names", type_=sa.ARRAY(sa.Text())))

_PLACES: Final = " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
_CHOSEN: Final = " WHERE n.nspname = ANY (:schemas) AND c.relname = ANY (:names)"


def _of_places(sql: str) -> sa.TextClause:
    return sa.text(sql).bindparams(
        sa.bindparam("schemas", type_=sa.ARRAY(sa.Text())), sa.bindparam("names", type_=sa.ARRAY(sa.Text()))
    )


def _named(tables: Collection[Place]) -> dict[str, list[str]]:
    return {
        "schemas": sorted({str(schema) for schema, _name in tables}),
        "names": sorted({name for _schema, name in tables}),
    }


_COLUMNS: Final = _of_places(
    "SELECT n.nspname AS schema, c.relname AS name, a.attname AS column_name,"
    " format_type(a.atttypid, a.atttypmod) AS type"
    f"{_PLACES} JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped{_CHOSEN}"
)
_OWNERS: Final = _of_places(
    "SELECT n.nspname AS schema, c.relname AS name, CAST(pg_get_userbyid(c.relowner) AS text) AS owner,"
    f" CAST(CAST(c.oid AS bigint) AS text) AS identity{_PLACES}{_CHOSEN}"
)
_FUNCTION_OWNERS: Final = _in_schemas(
    "SELECT n.nspname AS schema, p.proname AS name, CAST(pg_get_userbyid(p.proowner) AS text) AS owner,"
    " coalesce(CAST(p.proacl AS text), '') AS rights"
    " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
    " WHERE starts_with(p.proname, 'sa_audit_') AND p.prokind = 'f' AND n.nspname = ANY (:schemas)"
)
_PARTS: Final = _of_places(
    "SELECT pn.nspname AS schema, pc.relname AS name"
    f"{_PLACES} CROSS JOIN LATERAL pg_partition_tree(c.oid) AS p JOIN pg_class AS pc ON pc.oid = p.relid"
    f" JOIN pg_namespace AS pn ON pn.oid = pc.relnamespace{_CHOSEN} AND c.relkind = 'p' AND p.level > 0"
)
