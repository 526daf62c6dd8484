"""The Alembic templates that come with the library: in the wheel beside the code, in an editable install above it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from .failure import CantRun, WrongUsage

NAMES: Final = ("generic", "async", "pyproject")


def template_path(name: str) -> Path:
    """Give the directory of a template, absolute.

    Raises:
        WrongUsage: for a name that is none.
        CantRun: if the installation lacks it.
    """
    if name not in NAMES:
        raise WrongUsage(f"{name!r} is no template: give one of {', '.join(NAMES)}")
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_alembic_templates", package.parent / "alembic_templates"):
        if (root / name / "env.py").is_file():
            return root / name
    raise CantRun(f"the template {name!r} is not part of this installation: install sa-audit again")


def make_environment(directory: str, template: str) -> None:
    """Make a migration environment, and alembic.ini in the working directory if there is none.

    Raises:
        WrongUsage: for a name that is no template, a directory that is not empty, or a place where none can be made.
    """
    config = Config("alembic.ini", toml_file="pyproject.toml")
    try:
        command.init(config, directory, template=str(template_path(template)))
    except CommandError as error:
        raise WrongUsage(str(error)) from error
    except OSError as error:
        raise WrongUsage(f"{directory} can't be made a directory of migrations: {error}; give another DIR") from error
