"""Functions and triggers of a trail that were changed since a run before, also those that were put back.

PostgreSQL gives a row of its catalog a new ``xmin`` whenever the object is replaced, dropped and made again, switched
off or on; a vacuum gives none.  What a run saw is kept in a file, outside of the database.
Imports ddl, model and SQLAlchemy only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ddl.postgresql_capture_text import CAPTURES
from ..ddl.privileges import trail_tables
from ..errors import ConfigurationError
from ..model.history import Trail
from .level import Finding

FORMAT: Final = 1


def touched(connection: Connection, trail: Trail, file: Path) -> list[Finding]:
    """Compare the catalog with what the run before saw, and note what is new; while anything differs nothing is noted.

    Args:
        connection: to PostgreSQL.
        trail: the trail, complete.
        file: what the run before noted, made if it is not there.

    Raises:
        ConfigurationError: on another database, or for a file that is none of these.
    """
    if connection.dialect.name != "postgresql":
        raise ConfigurationError(
            f"{connection.dialect.name} does not tell when a trigger was made, so there is nothing to compare with "
            f"{file}: leave it out"
        )
    known, now = _read(file), _versions(connection, trail)
    found = [
        Finding(
            kind="touched-object",
            place=name,
            message=f"it was replaced, or switched off and on, since {file} was written: find out who did that and "
            "why, and then remove the file",
            expected=f"xmin {known[name]}",
            got=f"xmin {version}",
        )
        for name, version in sorted(now.items())
        if known.get(name, version) != version
    ]
    if not found and now.items() - known.items():
        _write(file, {**known, **now})
    return found


def _versions(connection: Connection, trail: Trail) -> dict[str, str]:
    default = connection.dialect.default_schema_name or "public"
    tables = [*trail_tables(trail), *trail.audited]
    schemas = sorted({table.schema or default for table in tables})
    return {row.name: row.version for row in connection.execute(_VERSIONS, {"schemas": schemas})}


def _read(file: Path) -> dict[str, str]:
    try:
        given: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can't be read as what a check has seen: {error}") from error
    objects = given.get("objects") if isinstance(given, dict) and given.get("format") == FORMAT else None
    if not isinstance(objects, dict) or not all(isinstance(value, str) for value in objects.values()):
        raise ConfigurationError(f"{file} is not what a check has seen: give another file, or remove it")
    return objects


def _write(file: Path, objects: Mapping[str, str]) -> None:
    """Write the file as a whole or not at all."""
    text = json.dumps({"format": FORMAT, "objects": dict(sorted(objects.items()))}, indent=1, ensure_ascii=False)
    beside = file.with_name(f"{file.name}.new")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(file)


_VERSIONS: Final = sa.text(
    "SELECT format('function %s.%s(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name,"
    " CAST(p.xmin AS text) AS version FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
    " WHERE starts_with(p.proname, 'sa_audit_') AND n.nspname = ANY (:schemas)"
    " UNION ALL SELECT format('trigger %s.%s.%s', n.nspname, c.relname, t.tgname), CAST(t.xmin AS text)"
    " FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE NOT t.tgisinternal AND n.nspname = ANY (:schemas)"
    f" AND (starts_with(t.tgname, 'sa_audit_') OR starts_with(t.tgname, '{CAPTURES}'))"
).bindparams(sa.bindparam("schemas", type_=sa.ARRAY(sa.Text())))
