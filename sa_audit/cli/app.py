"""The commands: each parses, calls one function of the library, and prints one result object."""

from __future__ import annotations

import datetime as dt
import json as json_text
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast, overload

import sqlalchemy as sa
import typer
from rich.console import Console
from sqlalchemy import orm
from sqlalchemy.exc import SQLAlchemyError
from typer.core import TyperGroup

from ..capture.context import context
from ..errors import AuditError
from ..query import diff as query_diff
from ..query import history as query_history
from ..query import reads as query_reads
from ..query import restore as query_restore
from ..query import trail as query_trail
from ..query.change import OPERATIONS
from ..query.timetravel import as_of as query_as_of
from .encoding import takes_unicode
from .failure import CANT_RUN, CantRun, WrongUsage, exit_code, sentence
from .looking import looked
from .models import Models, load_models, parse_key
from .past import all_names, row_of, rows_of
from .results import DiffResult, HistoryResult, LogResult, ReadsResult, RestoreResult, Result, RowResult, RowsResult
from .settings import find_settings, open_engine


class _Commands(TyperGroup):
    """Turns the library's errors into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (AuditError, SQLAlchemyError) as error:
            typer.echo(f"sa-audit: {sentence(error)}", err=True)
            raise typer.Exit(exit_code(error)) from error


KINDS = (*OPERATIONS.values(), "event", "read")

app = typer.Typer(
    cls=_Commands,
    name="sa-audit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Ask the audit trail of a database: who changed what, when, why, before and after.",
    epilog="Exit codes: 0 fine, 1 findings, 2 wrong usage, 3 can't run.",
)

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="SA_AUDIT_URL", metavar="URL", help="The database, as SQLAlchemy names it."),
]
ModelsOption = Annotated[
    str | None, typer.Option("--models", metavar="MODULE:BASE", help="Where the models are declared.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A class, or a table.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="42, or 1,2 or a=1,b=2 for a key of several columns.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="From this moment, or the start of this day (UTC), on.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help="Up to this moment, or the end of this day (UTC).")
]
WHEN_HELP = "A moment with offset (2026-03-31T23:59:59Z), or a day, which means its end (UTC)."
When = Annotated[str, typer.Argument(metavar="WHEN", help=WHEN_HELP)]


def run() -> None:
    """Run the command line with the arguments of the process, and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        app(prog_name="sa-audit")
    except Exception as error:  # a fault of the program must not look like exit code 1, findings
        traceback.print_exc()
        raise SystemExit(CANT_RUN) from error


@app.callback()
def _root() -> None:
    """Ask the audit trail of a database: who changed what, when, why, before and after."""


@app.command()
def log(
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Only changes by this actor.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", metavar="MODEL", help="Only changes of this model.")] = None,
    operation: Annotated[
        str | None,
        typer.Option("--operation", metavar="KIND", help="Only one of: " + ", ".join(KINDS) + "."),
    ] = None,
    action: Annotated[str | None, typer.Option("--action", metavar="NAME", help="Only events of this name.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="The most entries to show.")
    ] = 50,
    after: Annotated[str | None, typer.Option("--after", metavar="CURSOR", help="Continue behind this cursor.")] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Show the changes of all models, events and reads in one order, oldest first."""
    if operation is not None and operation not in KINDS:
        raise WrongUsage(f"--operation {operation!r}: give one of {', '.join(KINDS)}")
    with _opened(url, models) as place, orm.Session(place.engine) as session:
        page = query_trail(
            session,
            actor=actor,
            entity=place.models.entity(entity).target if entity else None,
            base=place.models.trail.metadata,
            operation=cast("Any", operation),
            action=action,
            since=_when(since),
            until=_when(until),
            limit=limit,
            after=after,
        )
        session.close()
        question = {"actor": actor, "entity": entity, "operation": operation, "action": action, "since": since}
        looked(place.engine, place.models.trail, "log", {**question, "until": until, "after": after}, len(page.entries))
    _print(LogResult(page), json)


@app.command()
def show(
    model: Model,
    key: Key,
    since: Since = None,
    until: Until = None,
    attribute: Annotated[
        str | None, typer.Option("--attribute", metavar="NAME", help="Only changes of this attribute.")
    ] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Show the history of one row, oldest change first.

    The row may have been deleted since.
    """
    with _opened(url, models) as place, orm.Session(place.engine) as session:
        entity = place.models.entity(model)
        identity = parse_key(entity, key)
        changes = query_history(
            session, entity.target, identity, since=_when(since), until=_when(until), attribute=attribute
        )
        question = {"model": model, "key": key, "since": since, "until": until, "attribute": attribute}
        session.close()
        looked(place.engine, place.models.trail, "show", question, len(changes))
    _print(HistoryResult(f"{entity.name} {key}", changes), json)


@app.command()
def reads(
    model: Model,
    key: Key,
    since: Since = None,
    until: Until = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Show who looked at one row, oldest read first; for models with reads=True."""
    with _opened(url, models) as place, orm.Session(place.engine) as session:
        entity = place.models.entity(model)
        identity = parse_key(entity, key)
        found = query_reads(session, entity.target, identity, since=_when(since), until=_when(until))
        session.close()
        question = {"model": model, "key": key, "since": since, "until": until}
        looked(place.engine, place.models.trail, "reads", question, len(found))
    _print(ReadsResult(f"{entity.name} {key}", found), json)


@app.command()
def diff(
    model: Model,
    key: Key,
    earlier: Annotated[str, typer.Argument(metavar="FROM", help=WHEN_HELP)],
    later: Annotated[str, typer.Argument(metavar="TO", help=WHEN_HELP)],
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Show what of one row differs between two moments."""
    with _opened(url, models) as place, orm.Session(place.engine) as session:
        entity = place.models.entity(model)
        identity = parse_key(entity, key)
        found = query_diff(session, entity.target, identity, _when(earlier), _when(later))
        session.close()
        question = {"model": model, "key": key, "from": earlier, "to": later}
        looked(place.engine, place.models.trail, "diff", question, len(found))
    _print(DiffResult(f"{entity.name} {key}", earlier, later, found), json)


@app.command("as-of")
def as_of(
    when: When,
    model: Model,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="One row; otherwise all.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The most rows to show.")] = 100,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Show a row, or the rows of a model, as they were at a moment."""
    result: Result
    with _opened(url, models) as place:
        entity = place.models.entity(model)
        identity = None if key is None else parse_key(entity, key)
        with query_as_of(place.engine, _when(when)) as past:
            if identity is not None:
                shown = 1
                result = RowResult(f"{entity.name} {key} as of {when}", row_of(past, entity, identity))
            else:
                rows = rows_of(past, entity, limit + 1)
                shown = len(rows[:limit])
                result = RowsResult(f"{entity.name} as of {when}", all_names(rows), rows[:limit], len(rows) > limit)
        looked(place.engine, place.models.trail, "as-of", {"model": model, "key": key, "when": when}, shown)
    _print(result, json)


@app.command()
def restore(
    model: Model,
    key: Key,
    when: When,
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who restores it: recorded.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why: recorded.")] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Bring a row back to what it was, as a new, recorded change.

    A row that has been deleted since comes back, too.  Masked and excluded columns keep their present value.
    """
    said = {name: text for name, text in (("actor", actor), ("reason", reason)) if text is not None}
    with context(**said), _opened(url, models) as place, orm.Session(place.engine) as session:
        entity = place.models.entity(model)
        identity = parse_key(entity, key)
        before = query_history(session, entity.target, identity)
        query_restore(session, entity.target, identity, _when(when))
        session.flush()
        after = query_history(session, entity.target, identity)
        session.commit()
    change = after[-1] if len(after) > len(before) else None
    state = change.state if change is not None else (after[-1].state if after else None)
    _print(RestoreResult(f"{entity.name} {key} restored to {when}", state, change), json)


@app.command()
def demo(
    path: Annotated[
        Path, typer.Option("--path", metavar="FILE", help="The SQLite file to make.", dir_okay=False)
    ] = Path("sa_audit_demo.db"),
    json: Json = False,
) -> None:
    """Tell the story of a small bank, on a SQLite file.

    The file stays, to be explored with the other commands.
    """
    from .demo import tell

    tell(path, console=Console(highlight=False), json=json)


# -- parts -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """The database and the models that a command works on."""

    engine: sa.Engine
    models: Models


@contextmanager
def _opened(url: str | None, models: str | None) -> Iterator[_Place]:
    """Give what a command works on, once the trail is there; every connection is closed at the end."""
    settings = find_settings(url, models, Path.cwd())
    loaded = load_models(settings.models, settings.directories)
    engine = open_engine(settings.url)
    try:
        table = loaded.trail.transaction
        if not sa.inspect(engine).has_table(table.name, schema=table.schema):
            raise CantRun(
                f"the database {engine.url.render_as_string()} has no trail: it lacks the table {table.fullname}; "
                "make it with create_all() or the migration, or check the URL"
            )
        yield _Place(engine, loaded)
    finally:
        engine.dispose()


@overload
def _when(text: str) -> str | dt.date: ...
@overload
def _when(text: None) -> None: ...
def _when(text: str | None) -> str | dt.date | None:
    """Give a day as a date, which the library knows how to bound; anything else is the library's to read."""
    if text is None or re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is None:
        return text
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise WrongUsage(f"{text!r} is no day: {error}") from error


def _print(result: Result, json: bool) -> None:
    if json:
        typer.echo(
            json_text.dumps(result.to_json(), indent=2, ensure_ascii=not takes_unicode(sys.stdout), allow_nan=False)
        )
        return
    Console(highlight=False).print(result.render())


from . import (  # noqa: E402 (their commands are added to those above)
    adoption,  # noqa: F401
    erasing,  # noqa: F401
    log_commands,  # noqa: F401
    partitions,  # noqa: F401
    pruning,  # noqa: F401
    schema_commands,  # noqa: F401
)
