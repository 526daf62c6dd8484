"""The commands of the sealed log: keys and witnesses, seal and rebase, verify, prove and export.

Imported by app, whose options and ways to open and print it uses.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import Json, Key, Model, ModelsOption, Url, _opened, _print, app
from .failure import FINDINGS, WrongUsage
from .models import parse_key

Operator = Annotated[str, typer.Option("--actor", metavar="NAME", help="Who says so: stands in the log for ever.")]
Ground = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why: stands in the log for ever.")]


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
    actor: Operator,
    reason: Ground,
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
def revoke(
    vkey: Annotated[Path, typer.Option("--vkey", metavar="FILE", help="The verifier key of what was stolen.")],
    state: Annotated[Path, typer.Option("--state", metavar="FILE", help="The sealer's own memory.")],
    size: Annotated[int, typer.Option("--size", metavar="N", help="That of the last checkpoint which is good.")],
    stolen_at: Annotated[
        str, typer.Option("--stolen-at", metavar="TIME", help="The earliest moment of the theft, with its offset.")
    ],
    actor: Operator,
    reason: Ground,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Say that somebody else may have a key of the log, so that what it signs does not count any more.

    Another key has to sign already: seal once with both.  Verifiers have to be told as well.
    """
    from ..proof import Verifier
    from ..seal import revoke as revoke_key
    from .sealing import RebaseResult, moment_of

    key, moment = Verifier.load(vkey), moment_of("--stolen-at", stolen_at)
    with _opened(url, models) as place:
        revoke_key(
            place.engine,
            key,
            state=state,
            size=size,
            stolen_at=moment,
            operator=actor,
            reason=reason,
            metadata=place.models.trail.metadata,
        )
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
    read: Annotated[
        int | None, typer.Option("--read", metavar="N", help="Not of a change, but that this read showed the row.")
    ] = None,
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Print the proof that a change of a row, or a read of it, is in the log, to be checked with no database."""
    from .proving import prove_change, prove_read

    if read is not None and audit_id is not None:
        raise WrongUsage("--audit-id is of a change, --read of a read: give one of them")
    with _opened(url, models) as place:
        entity, metadata = place.models.entity(model), place.models.trail.metadata
        identity = parse_key(entity, key)
        if read is None:
            result = prove_change(place.engine, metadata, entity, identity, audit_id)
        else:
            result = prove_read(place.engine, metadata, entity, identity, read)
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
    form: Annotated[
        str, typer.Option("--format", metavar="FORM", help="jsonl, csv or parquet, on standard output.")
    ] = "jsonl",
    url: Url = None,
    models: ModelsOption = None,
    json: Json = False,
) -> None:
    """Hand out changes, as lines or as a bundle with its proofs."""
    from .exporting import FORMS, make_bundle, write_changes
    from .looking import EXPORTED, looked

    if form not in FORMS:
        raise WrongUsage(f"--format {form!r}: give {', '.join(FORMS[:-1])} or {FORMS[-1]}")
    with _opened(url, models) as place:
        entity = place.models.entity(model) if model else None
        identity = parse_key(entity, key) if entity is not None and key is not None else None
        metadata = place.models.trail.metadata
        question = {"model": model, "key": key, "bundle": bundle, "format": None if bundle else form}
        looked(place.engine, place.models.trail, "export", question, None, EXPORTED)
        if bundle is None:
            write_changes(place.engine, metadata, entity, identity, form, sys.stdout)
            return
        made = make_bundle(place.engine, metadata, bundle, vkey, entity, identity, complete=complete)
    _print(made, json)
