"""Tables whose history the database's triggers write: the session only says who and why, and records nothing itself.

It says so in one round trip for each writing transaction, before the first statement that is not a plain read.
Imports model, ddl, and of capture the context, the recording and the reading of texts.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.functions import Function, FunctionElement
from sqlalchemy.sql.selectable import SelectBase, TextualSelect

from ..ddl.backend import Backend, Target, backend_for, is_supported, noted_trails
from ..errors import CaptureMissing, UnauditedWrite
from ..model.history import AuditedTable, Trail, audited_of, capturing
from . import clock
from .ahead import goes_ahead, wait
from .captured import forget, require_capture
from .context import NOBODY, Context, current_context
from .context_policy import claims_of, trail_for
from .failing import abandon, missing_table
from .recording import (
    Ahead,
    Recording,
    Told,
    admit,
    claims_here,
    open_savepoints,
    place_of,
    present_recording,
    recording_on,
    target_of,
)
from .statement import nested_writes
from .text import controls_only, ends_transaction, may_write, named_tables

_READS: Final = "_sa_audit_reads_only"

_HARMLESS_WORDS: Final = """
    abs age array_agg avg bool_and bool_or btrim ceil ceiling char_length cos date date_part date_trunc datetime
    degrees dense_rank exp extract first_value floor format greatest group_concat hex ifnull iif initcap instr
    isnull json_agg json_array_length json_extract json_object julianday lag last_value lcase lead least left len
    length ln log lower lpad ltrim md5 mod month nullif pg_current_snapshot position power quote radians random
    rank regexp_replace repeat replace right round row_number rpad rtrim sign sin sqrt strftime string_agg
    strpos substr substring sum tan time to_char to_date to_timestamp total trim trunc typeof ucase unicode unnest
    upper year
"""
HARMLESS: Final = frozenset(_HARMLESS_WORDS.split())
"""Functions of the databases themselves that write nothing; of others it is not known."""


def admit_write(connection: Connection, audited: AuditedTable, options: Any) -> None:
    """Admit a statement on a table that triggers record: who is there as asked for, and the triggers are there.

    Raises:
        ActorRequired: if the configuration asks for an actor and there is none.
        ReasonRequired: likewise for a reason.
        CaptureMissing: if the database has no such trigger.
        UnauditedWrite: in AUTOCOMMIT, or if the history stays behind when the table's schema is translated.
    """
    admit(connection, audited)
    require_capture(connection, audited, options)


def tell(connection: Connection, sql: str, execution: Any) -> None:
    """Tell the database who writes, and why, unless it knows already or the statement is a plain read.

    Raises:
        UnauditedWrite: for text that writes such a table in AUTOCOMMIT, where the actor would not be recorded.
    """
    if not capturing or not is_supported(connection.dialect):
        return
    trails = capturing.trails()
    backend, context = backend_for(connection.dialect), current_context()
    recording = present_recording(connection)
    if recording is not None and ends_transaction(sql):
        recording.told.clear()
        return
    told = recording.told[-1].context if recording is not None and recording.told else None
    if told is not None and (told is context or told == context):
        return
    if told is None and context == NOBODY and not (backend.tells_always or (recording and recording.told_to)):
        return
    if _is_plain_read(backend, sql, execution):
        return
    if backend.in_autocommit(connection):
        _refuse_nameless(sql, trails, context)
        return
    targets = _targets(connection, backend, trails)
    if targets:
        recording = recording_on(connection)
        token = recording.token = recording.token or secrets.token_hex(16)
        claims = _claims(connection, recording, trails, context)
        said = backend.tell_ahead(claims) if goes_ahead(connection) else None
        if said is not None:
            wait(connection, recording, Ahead(*said, lambda cursor: None))
        else:
            firsts = [recording.first(place_of(connection, target)) for target in targets]
            backend.tell(connection, targets, firsts, claims, token, clock.now)
        recording.told.append(Told(context, open_savepoints(connection)))
        recording.told_to = targets


def _claims(connection: Connection, recording: Recording, trails: list[Trail], context: Context) -> dict[str, Any]:
    """Give what the triggers record of a context, by the policies of the database's trail."""
    noted = noted_trails(connection.dialect)
    trail = trail_for([one for one in trails if one in noted] or trails)
    if trail is None or not trail.configuration.context:
        return claims_of(context)
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    return claims_here(connection, recording, Target(trail.captured()[0], schemas), context)


def _refuse_nameless(sql: str, trails: list[Trail], context: Any) -> None:
    names = named_tables(sql, [audited for trail in trails for audited in trail.captured()])
    if names and context != NOBODY:
        raise UnauditedWrite(
            f"the audited table {names[0].table.fullname} can't be written in AUTOCOMMIT by {context.actor!r}, since "
            "who and why is told for one transaction: use a connection or session with a transaction"
        )


def _targets(connection: Connection, backend: Backend, trails: list[Trail]) -> list[Target]:
    """Give one captured table for each schema in which there is a trail that is to be told."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    found: dict[str | None, Target | None] = {}
    for trail in trails:
        schema = trail.transaction.schema
        place = schemas.get(schema, schema)
        if place not in found:  # what is asked of the database is the same for all trails in it
            target = Target(trail.captured()[0], schemas)
            found[place] = target if backend.can_be_told(connection, target) else None
    return [target for target in found.values() if target is not None]


def name_missing(connection: Connection, written: Any, error: BaseException) -> None:
    """Say which table of the trail is missing, where a statement on a captured table failed because of that.

    Raises:
        CaptureMissing: naming it; the transaction is rolled back.
    """
    audited = audited_of(getattr(written, "table", None))
    if audited is None or not audited.by_trigger:
        return
    names = (audited.history.name, audited.trail.transaction.name)
    if not backend_for(connection.dialect).misses_table(error, names):
        return
    target = target_of(audited, connection.get_execution_options())
    abandon(connection)
    missing = missing_table(connection, target)
    if missing is not None:
        forget(connection)
        raise CaptureMissing(
            f"the database has no table {missing}, so changes of {audited.table.fullname} can't be recorded: "
            "create it with metadata.create_all() or a migration"
        ) from error


# -- plain reads -------------------------------------------------------------------------


def _is_plain_read(backend: Backend, sql: str, execution: Any) -> bool:
    """Tell whether a statement can write nothing, by what it is made of or, if it is text, by its words."""
    if not backend.selects_write and not may_write(sql):
        return True
    compiled = execution.compiled if execution is not None else None
    if compiled is None or isinstance(compiled.statement, TextClause | TextualSelect | sa.DDL):
        return controls_only(sql)
    if execution.isddl:
        return True
    known: bool | None = compiled.__dict__.get(_READS)
    if known is None:
        known = compiled.__dict__[_READS] = _reads_only(compiled.statement)
    return known


def _reads_only(element: Any) -> bool:
    if isinstance(element, FromStatement):
        element = element.element
    if isinstance(element, sa.Sequence):
        return True
    if not isinstance(element, SelectBase | FunctionElement) or any(True for _ in nested_writes(element)):
        return False
    return not any(_is_unknown(inner) for inner in visitors.iterate(element))


def _is_unknown(inner: Any) -> bool:
    """Tell what may do something that the statement does not show: text, and functions that are not known."""
    if isinstance(inner, UpdateBase | TextClause | TextualSelect):
        return True
    if isinstance(inner, ColumnClause):
        return bool(inner.is_literal) and "(" in inner.name
    if type(inner) is Function:
        return bool(inner.packagenames) or inner.name.lower() not in HARMLESS
    return isinstance(inner, FunctionElement) and not type(inner).__module__.startswith("sqlalchemy.")


# -- the end of a transaction ----------------------------------------------------------------


def hush(connection: Connection) -> None:
    """Take back what was told, so that it does not stay for whoever writes next."""
    recording = None if connection.invalidated else present_recording(connection)
    if recording is None or not recording.told_to:
        return
    targets, recording.told_to = recording.told_to, []
    recording.told.clear()
    try:
        recording.backend.hush(connection, targets)
    except BaseException as error:
        connection.invalidate(error)  # a connection that still names somebody must not go back to the pool
        raise


@event.listens_for(Engine, "commit")
def _commit(connection: Connection) -> None:
    hush(connection)


@event.listens_for(Engine, "rollback")
def _rollback(connection: Connection) -> None:
    recording = None if connection.invalidated else present_recording(connection)
    if recording is not None and not recording.backend.told_rolls_back:
        hush(connection)


@event.listens_for(Engine, "prepare_twophase")
def _prepare(connection: Connection, xid: Any) -> None:
    hush(connection)


__all__ = ["admit_write", "hush", "name_missing", "tell"]
