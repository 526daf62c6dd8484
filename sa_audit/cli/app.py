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
from ..query import restore as query_restore
from ..query import trail as query_trail
from ..query.change import OPERATIONS
from ..query.timetravel import as_of as query_as_of
from .check import run_check
from .failure import CANT_RUN, FINDINGS, CantRun, WrongUsage, exit_code, sentence
from .models import Models, load_models, parse_key
from .past import all_names, row_of, rows_of
from .results import DiffResult, HistoryResult, LogResult, RestoreResult, Result, RowResult, RowsResult
from .roles import provisioning_script
from .settings import find_settings, open_engine
from .templates import make_environment, template_path


class _Commands(TyperGroup):
    """Turns the library's errors into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (AuditError, SQLAlchemyError) as error:
            typer.echo(f"sa-audit: {sentence(error)}", err=True)
            raise typer.Exit(exit_code(error)) from error


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
        typer.Option("--operation", metavar="KIND", help="Only one of: " + ", ".join(OPERATIONS.values()) + "."),
    ] = None,
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
    """Show the changes of all models in one order, oldest first."""
    if operation is not None and operation not in OPERATIONS.values():
        raise WrongUsage(f"--operation {operation!r}: give one of {', '.join(OPERATIONS.values())}")
    with _opened(url, models) as place, orm.Session(place.engine) as session:
        page = query_trail(
            session,
            actor=actor,
            entity=place.models.entity(entity).target if entity else None,
            base=place.models.trail.metadata,
            operation=cast("Any", operation),
            since=_when(since),
            until=_when(until),
            limit=limit,
            after=after,
        )
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
    _print(HistoryResult(f"{entity.name} {key}", changes), json)


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
                result = RowResult(f"{entity.name} {key} as of {when}", row_of(past, entity, identity))
            else:
                rows = rows_of(past, entity, limit + 1)
                result = RowsResult(f"{entity.name} as of {when}", all_names(rows), rows[:limit], len(rows) > limit)
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


@app.command()
def keygen(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The log's name, such as bank.example/audit.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the files go.", file_okay=False, exists=True)
    ] = Path(),
    no_password: Annotated[bool, typer.Option("--no-password", help="Leave the signing key unencrypted.")] = False,
    witness: Annotated[bool, typer.Option("--witness", help="Make the key of a witness, not of a log.")] = False,
    json: Json = False,
) -> None:
    """Make a signing key for a log or a witness, and the verifier key that goes with it.

    The password comes from SA_AUDIT_KEY_PASSWORD, or is asked for.  No file is overwritten.
    """
    from .keygen import ask_password, make_key

    _print(make_key(name, out, ask_password(none=no_password), witness=witness), json)


@app.command()
def witness(
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The witness's own signing key.")],
    logs: Annotated[list[str], typer.Option("--log", metavar="VKEY", help="A log's verifier key, or its file.")],
    state: Annotated[Path, typer.Option("--state", metavar="FILE", help="What the witness remembers.")],
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where it listens; port 0 takes a free one.")
    ] = "127.0.0.1:8713",
    new: Annotated[bool, typer.Option("--new", help="Begin the state of a witness that has signed nothing.")] = False,
) -> None:
    """Run a witness, which cosigns what continues all that it has seen of a log (C2SP tlog-witness).

    It runs until it is told to stop, by SIGTERM or Ctrl-C.
    """
    from .witness import run_witness

    run_witness(key, logs, state, listen, new=new)


@app.command()
def seal(
    key: Annotated[
        list[Path], typer.Option("--key", metavar="FILE", help="The log's signing key; two while keys change.")
    ],
    state: Annotated[
        Path, typer.Option("--state", metavar="FILE", help="The sealer's own memory, made by the first run.")
    ],
    anchor: Annotated[
        list[str] | None, typer.Option("--anchor", metavar="URI", help="Where checkpoints are kept, such as file:PATH.")
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Go on for ever, such as every 2s; a signal stops it.")
    ] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Seal what is committed into the log, sign it, and have it anchored.

    The key's password comes from SA_AUDIT_KEY_PASSWORD, or is asked for.
    """
    from .sealing import load_signers, make_sealer, seal_every, seal_once, seconds

    pause = None if every is None else seconds(every)
    signers = load_signers(key)
    with _opened(url, models) as place:
        sealer = make_sealer(place.engine, signers, state, anchor or [], place.models.trail.metadata)
        if pause is None:
            _print(seal_once(sealer), json)
        else:
            seal_every(sealer, pause, lambda result: _print(result, json))


@app.command()
def rebase(
    state: Annotated[Path, typer.Option("--state", metavar="FILE", help="The sealer's own memory; made if missing.")],
    actor: Annotated[str, typer.Option("--actor", metavar="NAME", help="Who says so: stands in the log for ever.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why: stands in the log for ever.")],
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Say that the database is rightly another one than before, so that sealing goes on.

    After a restore, a promoted standby, or the loss of the state file.
    """
    from ..seal import rebase as rebase_log
    from .sealing import RebaseResult

    with _opened(url, models) as place:
        rebase_log(place.engine, state=state, operator=actor, reason=reason, metadata=place.models.trail.metadata)
    _print(RebaseResult(state), json)


@app.command()
def verify(
    vkey: Annotated[
        Path,
        typer.Option("--vkey", metavar="FILE", help="The log's verifier key, or a policy, from where you trust it."),
    ],
    anchor: Annotated[
        list[str] | None,
        typer.Option("--anchor", metavar="URI", help="What keeps checkpoints outside of the database; again for more."),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option("--since", metavar="FILE", help="A checkpoint that you hold: older rows are not read again."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="How many processes read rows.")] = 1,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Recompute everything that was sealed, and say what does not fit.

    The exit code is 1 if there are findings.
    """
    from .verify import verify_trail

    with _opened(url, models) as place:
        result = verify_trail(place.engine, place.models.trail.metadata, vkey, anchor or (), since, workers, quiet=json)
    _print(result, json)
    if not result.report.ok:
        raise typer.Exit(FINDINGS)


@app.command()
def prove(
    model: Model,
    key: Key,
    audit_id: Annotated[
        int | None, typer.Option("--audit-id", metavar="N", help="Which change; the last one if not given.")
    ] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Print the proof that a change of a row is in the log, to be checked with no database."""
    from .proving import prove_change

    with _opened(url, models) as place:
        entity = place.models.entity(model)
        identity = parse_key(entity, key)
        result = prove_change(place.engine, place.models.trail.metadata, entity, identity, audit_id)
    if json:
        _print(result, json)
    else:
        typer.echo(result.proof.format(), nl=False)


@app.command()
def export(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A class, or a table; otherwise all.")] = None,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="One row; otherwise all.")] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE", help="A zip file that is checked with no database.")
    ] = None,
    vkey: Annotated[
        Path | None, typer.Option("--vkey", metavar="FILE", help="The verifier key, or policy, that goes along.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="With every leaf of the log, to show that nothing was left out.")
    ] = False,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="jsonl or csv, on standard output.")] = "jsonl",
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Hand out changes, as lines or as a bundle with its proofs."""
    from .exporting import make_bundle, write_changes

    if form not in ("jsonl", "csv"):
        raise WrongUsage(f"--format {form!r}: give jsonl or csv")
    with _opened(url, models) as place:
        entity = place.models.entity(model) if model else None
        identity = parse_key(entity, key) if entity is not None and key is not None else None
        metadata = place.models.trail.metadata
        if bundle is None:
            write_changes(place.engine, metadata, entity, identity, form, sys.stdout)
            return
        made = make_bundle(place.engine, metadata, bundle, vkey, entity, identity, complete=complete)
    _print(made, json)


# -- parts -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """The database and the models that a command works on."""

    engine: sa.Engine
    models: Models


Template = Annotated[str, typer.Option("--template", metavar="NAME", help="generic, async or pyproject.")]


@app.command("init")
def init(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where the migrations are to stand.")],
    template: Template = "generic",
) -> None:
    """Make an Alembic environment that writes the trail's tables and guards."""
    make_environment(directory, template)


@app.command("template-path")
def show_template_path(
    name: Annotated[str, typer.Argument(metavar="NAME", help="generic, async or pyproject.")],
) -> None:
    """Print where a template stands, for alembic init -t."""
    typer.echo(str(template_path(name)))


@app.command()
def roles(
    application: Annotated[
        str | None, typer.Option("--application", metavar="NAME", help="The account that the application works as.")
    ] = None,
    migrator: Annotated[
        str | None, typer.Option("--migrator", metavar="NAME", help="The account that runs the migrations.")
    ] = None,
    url: Url = None,
    models: ModelsOption = None,
) -> None:
    """Print the SQL by which a database administrator makes the roles of the trail.

    Nothing is run; the server is asked for its version only.
    """
    settings = find_settings(url, models, Path.cwd())
    loaded = load_models(settings.models, settings.directories)
    engine = open_engine(settings.url)
    try:
        typer.echo(provisioning_script(engine, loaded.trail, application, migrator), nl=False)
    finally:
        engine.dispose()


@app.command()
def check(
    level: Annotated[
        int | None, typer.Option("--level", metavar="N", min=0, max=4, help="Fail below this protection level.")
    ] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Compare the live database with what it should be, and say which protection level it reaches.

    Exit code 1 on any difference, and below the level that --level asks for.
    """
    settings = find_settings(url, models, Path.cwd())
    loaded = load_models(settings.models, settings.directories)
    engine = open_engine(settings.url)
    try:
        result = run_check(engine, loaded.trail, level)
    finally:
        engine.dispose()
    _print(result, json)
    if not result.passed:
        raise typer.Exit(FINDINGS)


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
        typer.echo(json_text.dumps(result.to_json(), indent=2, ensure_ascii=not _is_unicode(), allow_nan=False))
        return
    Console(highlight=False).print(result.render())


def _is_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")


from . import adoption  # noqa: E402, F401 (its commands are added to those above)
