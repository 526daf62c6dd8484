"""The commands about the schema: environments for migrations, roles, and whether the live database is as it should be.

Imported by app, whose options and ways to print it uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import Json, ModelsOption, Url, _print, app
from .check import run_check
from .failure import FINDINGS
from .models import load_models
from .roles import provisioning_script
from .settings import find_settings, open_engine
from .templates import make_environment, template_path

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
    vkey: Annotated[
        Path | None,
        typer.Option("--vkey", metavar="FILE", help="The log's verifier key; then it verifies, too."),
    ] = None,
    anchor: Annotated[
        list[str] | None, typer.Option("--anchor", metavar="URI", help="What keeps checkpoints; again for more.")
    ] = None,
    seen: Annotated[
        Path | None,
        typer.Option(
            "--seen", metavar="FILE", help="What the last run saw of functions and triggers; made if missing."
        ),
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
        result = run_check(engine, loaded.trail, level, vkey, anchor or (), seen)
    finally:
        engine.dispose()
    _print(result, json)
    if not result.passed:
        raise typer.Exit(FINDINGS)
