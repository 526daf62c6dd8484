"""Which database and which models: from the options, the environment, or ``[tool.sa_audit]`` in pyproject.toml.

An option comes before ``SA_AUDIT_URL``, and that before the nearest pyproject.toml, upward from the working
directory, that has the table.  Imports nothing of the library but errors.
"""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from .failure import CantRun, WrongUsage

KEYS: Final = ("url", "models")
_MYSQL: Final = (("pymysql", "pymysql"), ("mysqldb", "MySQLdb"), ("mariadbconnector", "mariadb"))
SYNCHRONOUS: Final = {
    "postgresql": (("psycopg", "psycopg"), ("psycopg2", "psycopg2")),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "sqlite": (("pysqlite", "sqlite3"),),
}
"""Drivers that can take an async one's place, with their modules, by the database's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one run works on.

    Args:
        url: the database.
        models: ``module:Base``, where the models are declared.
        directories: where modules are looked for, before the rest of ``sys.path``.
    """

    url: str
    models: str
    directories: tuple[Path, ...]


def find_settings(url: str | None, models: str | None, directory: Path) -> Settings:
    """Complete what the options say by the project's own settings.

    Args:
        url: of ``--url`` or the environment, or None.
        models: of ``--models``, or None.
        directory: the working directory.

    Raises:
        WrongUsage: if either is said nowhere, or the project's settings are unreadable.
    """
    directories = [directory]
    if not url or not models:
        project, found = project_settings(directory)
        url, models = url or found.get("url"), models or found.get("models")
        if project is not None and project.parent != directory:
            directories.append(project.parent)
    if not url:
        raise WrongUsage("no database: give --url, SA_AUDIT_URL, or url in [tool.sa_audit] of pyproject.toml")
    if not models:
        raise WrongUsage("no models: give --models module:Base, or models in [tool.sa_audit] of pyproject.toml")
    return Settings(url=url, models=models, directories=tuple(directories))


def project_settings(directory: Path) -> tuple[Path | None, dict[str, str]]:
    """Give the nearest pyproject.toml with ``[tool.sa_audit]``, and what stands there.

    Raises:
        WrongUsage: if it is not readable as TOML, has another key, or a value that is no string.
    """
    for parent in (directory, *directory.parents):
        file = parent / "pyproject.toml"
        if file.is_file():
            table = _read(file).get("tool", {}).get("sa_audit")
            if table is not None:
                return file, _checked(file, table)
    return None, {}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} can't be read: {error}") from error


def _checked(file: Path, table: Any) -> dict[str, str]:
    for key, value in table.items() if isinstance(table, dict) else [("", table)]:
        if key not in KEYS:
            raise WrongUsage(f"[tool.sa_audit] of {file} has the key {key!r}: it knows {' and '.join(KEYS)}")
        if not isinstance(value, str):
            raise WrongUsage(f"{key} in [tool.sa_audit] of {file} is {value!r}: give a string")
    return dict(table)


def open_engine(url: str) -> sa.Engine:
    """Make the engine of a URL, without connecting; in place of an async driver with the database's synchronous one.

    Raises:
        WrongUsage: if it is no database URL.
        CantRun: if its driver is not installed, or no synchronous one in an async one's place, or its SQLite file does
            not exist.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError) as error:
        raise WrongUsage(
            "the database URL can't be read: give one such as postgresql+psycopg://user@host/name"
        ) from error
    try:
        engine = sa.create_engine(_synchronous(parsed))
    except NoSuchModuleError as error:
        raise WrongUsage(
            f"{parsed.drivername!r} in the database URL is no dialect that SQLAlchemy knows here"
        ) from error
    except ModuleNotFoundError as error:
        raise CantRun(f"the database URL needs the driver {error.name}, which is not installed here") from error
    _require_file(parsed)
    return engine


def _synchronous(url: sa.URL) -> sa.URL:
    """Put the first synchronous driver that is installed in place of an async one: async programs have such URLs."""
    if not url.get_dialect().is_async:
        return url
    backend = url.get_backend_name()
    for driver, module in SYNCHRONOUS.get(backend, ()):
        if importlib.util.find_spec(module) is not None:
            return url.set(drivername=f"{backend}+{driver}")
    raise CantRun(
        f"{url.drivername} is an async driver, and no synchronous one of {backend} is installed: install one, such as "
        f"{', '.join(module for _driver, module in SYNCHRONOUS.get(backend, ()))}"
    )


def _require_file(url: sa.URL) -> None:
    """Refuse a SQLite file that is not there, since opening would make an empty one."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return
    if not Path(name).is_file():
        raise CantRun(f"there is no database file {name}: check the URL, or make the demo's with sa-audit demo")
