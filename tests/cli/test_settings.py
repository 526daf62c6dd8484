"""Where the database and the models come from, and what can't be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from sa_audit.cli.failure import CantRun, WrongUsage
from sa_audit.cli.settings import SYNCHRONOUS, Settings, find_settings, open_engine, project_settings


def project(directory: Path, text: str) -> Path:
    """Write a pyproject.toml."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pyproject.toml").write_text(text)
    return directory


BOTH = '[tool.sa_audit]\nurl = "sqlite://"\nmodels = "bank:Base"\n'


def test_options_alone(tmp_path: Path) -> None:
    """With both options nothing else is read, not even a broken pyproject.toml."""
    project(tmp_path, "not toml")
    assert find_settings("sqlite://", "m:B", tmp_path) == Settings(
        url="sqlite://", models="m:B", directories=(tmp_path,)
    )


def test_project_settings_from_below(tmp_path: Path) -> None:
    """The settings are found upward, and the project's directory is where modules are looked for, too."""
    project(tmp_path, BOTH)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_settings(None, None, below) == Settings(
        url="sqlite://", models="bank:Base", directories=(below, tmp_path)
    )


def test_options_come_first(tmp_path: Path) -> None:
    """An option stands above the project's setting, each by itself."""
    project(tmp_path, BOTH)
    assert find_settings("sqlite:///x", None, tmp_path).url == "sqlite:///x"
    assert find_settings("sqlite:///x", None, tmp_path).models == "bank:Base"
    assert find_settings(None, "m:B", tmp_path).models == "m:B"


def test_a_nearer_project_without_the_table_is_passed(tmp_path: Path) -> None:
    """A pyproject.toml that says nothing of the trail does not hide the one above it."""
    project(tmp_path, BOTH)
    nearer = project(tmp_path / "sub", "[tool.other]\nx = 1\n")
    assert project_settings(nearer)[0] == tmp_path / "pyproject.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no database: give --url, SA_AUDIT_URL, or url"),
        ('[tool.sa_audit]\nurl = "sqlite://"', "no models: give --models module:Base"),
        ("[tool.sa_audit\n", "can't be read"),
        ("[tool.sa_audit]\nurl = 5", "url in [tool.sa_audit]"),
        ('[tool.sa_audit]\nuri = "x"', "has the key 'uri': it knows url and models"),
        ("[tool]\nsa_audit = 5", "it knows url and models"),
    ],
)
def test_project_settings_refused(text: str, message: str, tmp_path: Path) -> None:
    """What is missing or wrong in the settings is said with its place."""
    with pytest.raises(WrongUsage) as caught:
        find_settings(None, None, project(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "can't be read"),
        ("nonsense://x", "'nonsense' in the database URL is no dialect"),
        ("postgresql+psycopg://u:secret@h:port/d", "can't be read"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    """A URL that can't be meant is refused, and never shown with its password."""
    with pytest.raises(WrongUsage) as caught:
        open_engine(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql+asyncpg://u:secret@h:5/d?host=/run", "postgresql+psycopg"),
        ("mysql+aiomysql://u@h/d", "mysql+pymysql"),
        ("mariadb+asyncmy://u@h/d", "mariadb+pymysql"),
        ("sqlite+aiosqlite://", "sqlite+pysqlite"),
    ],
)
def test_an_async_url_is_opened_by_a_synchronous_driver(url: str, driver: str) -> None:
    """A program's async URL serves its migrations and the commands alike; nothing else of it changes."""
    given, opened = sa.make_url(url), open_engine(url).url
    assert opened == given.set(drivername=driver)
    assert opened.password == given.password


def test_an_async_url_without_a_synchronous_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said which driver to install."""
    monkeypatch.setitem(SYNCHRONOUS, "postgresql", (("psycopg", "no_such_module"),))
    with pytest.raises(CantRun, match=r"postgresql\+asyncpg is an async driver, .* such as no_such_module"):
        open_engine("postgresql+asyncpg://u:secret@h/d")


def test_driver_that_is_not_installed() -> None:
    """A missing driver is named."""
    with pytest.raises(CantRun, match="needs the driver psycopg2"):
        open_engine("postgresql+psycopg2://h/d")


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    """Looking at a SQLite file that is not there does not make an empty one."""
    with pytest.raises(CantRun, match=r"no database file .*none\.db"):
        open_engine(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []
    open_engine("sqlite://").dispose()
