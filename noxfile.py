"""The project's chores: `nox` runs them all, `nox -l` lists them, `nox -s lint` runs one."""

import nox

nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.error_on_missing_interpreters = False

SQLALCHEMY = {"lowest": "sqlalchemy==2.0.30", "latest": "sqlalchemy>=2.1"}


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("sqlalchemy", list(SQLALCHEMY))
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """Run the tests on each Python with the lowest and the latest SQLAlchemy."""
    session.install("-e", ".[test]", SQLALCHEMY[sqlalchemy])
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy", "--strict", "sa_audit", "tests/typing")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors, and run its examples."""
    session.install("-e", ".[test,docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("python", "-m", "pytest", "tests/test_docs.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what the trail costs; arguments after `--` are passed on."""
    session.install("-e", ".[test]")
    session.run("python", "benchmarks/capture.py", *(session.posargs or ["sqlite:///benchmark.db"]))
