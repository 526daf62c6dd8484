"""What the benchmarks share: a database and a process for each side, environments for the peers, tables of ratios.

Sides are measured in turn, phase by phase, each in a process of its own that stays alive: noise hits all alike, no side
pays for another's hooks, and the plain side never imports an audit library.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

WORKLOAD = Path(__file__).with_name("workload.py")


class SideFailed(Exception):
    """A side that can't be installed, or that did not do its work; the message is the reason."""


@contextmanager
def empty_database(url: str | URL, name: str) -> Iterator[str]:
    """Make a database of that name beside the one of the URL, and drop it afterwards.

    Args:
        url: of a server's database whose user may create others; or of a SQLite file, which itself is not touched.
        name: of the new database; for SQLite, added to the file's name.

    Yields:
        The new database's URL, with its password.
    """
    url = make_url(url)
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "benchmark.db").absolute()
        path = path.with_name(f"{path.stem}_{name}.db")
        path.unlink(missing_ok=True)
        try:
            yield url.set(database=str(path)).render_as_string(hide_password=False)
        finally:
            path.unlink(missing_ok=True)
        return
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    drop = sa.text(f"DROP DATABASE IF EXISTS {name}")
    try:
        with engine.connect() as connection:
            connection.execute(drop)
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(drop)
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that does one side's work in one database."""

    name: str
    process: subprocess.Popen[str]
    errors: IO[str]
    about: dict[str, Any]

    def do(self, phase: str, **arguments: Any) -> dict[str, Any]:
        """Have a phase done, and return its answer.

        Raises:
            SideFailed: if the process ended instead.
        """
        try:
            print(json.dumps({"phase": phase, **arguments}), file=self.process.stdin, flush=True)
        except BrokenPipeError as error:
            raise SideFailed(self._reason()) from error
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Read the next answer."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.process.wait()
            raise SideFailed(self._reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _reason(self) -> str:
        self.errors.seek(0)
        said = [line for line in self.errors.read().splitlines() if line.strip()]
        lines = [line for line in said if not line.startswith("(Background on this error")]
        return lines[-1] if lines else f"ended with code {self.process.returncode} and said nothing"


@contextmanager
def worker(side: str, url: str, python: str = sys.executable) -> Iterator[Worker]:
    """Start a side's process on an empty database, and end it afterwards.

    Args:
        side: a key of `workload.SIDES`.
        url: of the empty database.
        python: the interpreter whose environment has what the side needs.

    Raises:
        SideFailed: if it can't set itself up.
    """
    with TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [python, str(WORKLOAD), side, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            started = Worker(side, process, errors, {})
            started.about.update(started.answer())
            yield started
        finally:
            process.kill()
            process.communicate()


@contextmanager
def workers(url: str, sides: Iterable[tuple[str, str, str]]) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Start several workers, each on a database of its own.

    Args:
        url: as for `empty_database`.
        sides: (label, side, interpreter) for each.

    Yields:
        The workers by label, and for those that could not start the reason, by label.
    """
    with ExitStack() as stack:
        running: dict[str, Worker] = {}
        failed: dict[str, str] = {}
        for label, side, python in sides:
            database = stack.enter_context(empty_database(url, f"sa_audit_benchmark_{label}"))
            try:
                running[label] = stack.enter_context(worker(side, database, python))
            except SideFailed as error:
                failed[label] = str(error)
        yield running, failed


def environment(directory: Path, name: str, requirements: Sequence[str]) -> str:
    """Make a virtual environment, unless it is there from an earlier run, and return its interpreter.

    Raises:
        SideFailed: if its packages can't be installed.
    """
    home = directory / name
    python, done = home / "bin" / "python", home / "installed.json"
    if done.exists() and json.loads(done.read_text()) == list(requirements):
        return str(python)
    venv.create(home, clear=True, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    result = subprocess.run(install, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise SideFailed(f"not installed: {errors[-1] if errors else result.stderr.strip()}")
    done.write_text(json.dumps(list(requirements)))
    return str(python)


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratio(value: float, plain: float) -> str:
    """Return how many times the plain figure the value is, to two digits."""
    return f"{value / plain:.2f}"
