"""The second pass shared out: groups of blocks, compared here or by processes of their own.

Imports the room's own parts.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .database import VerifierDatabase, verifier_for
from .log import Group, Log
from .report import Finding, Findings
from .rows import RowPass, Task

Result = tuple[int, tuple[Finding, ...], Counter[tuple[str, str | None]]]


def compare_all(
    engine: Engine,
    connection: Connection,
    database: VerifierDatabase,
    task: Task,
    log: Log,
    findings: Findings,
    workers: int,
    progress: Callable[[str, int, int | None], None],
) -> int:
    """Compare the rows of all groups; give how many were read.

    Args:
        engine: what other processes connect to, by its URL.
        connection: in a transaction with pinned settings.
        database: how to read it.
        task: what is common to the groups.
        log: what the first pass gave.
        findings: where findings go.
        workers: how many processes.
        progress: see :data:`.operations.Progress`.
    """
    total, done, read = sum(group.leaves for group in log.groups), 0, 0
    if workers == 1 or len(log.groups) < 2:
        passing = RowPass(database.catalog, task)
        for group in log.groups:
            read += passing.compare(connection, group, findings)
            done += group.leaves
            progress("rows", done, total)
        return read
    url = engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(url, task)) as pool:
        for group, (count, kept, counts) in zip(log.groups, pool.map(_compare, log.groups), strict=True):
            findings.merge(kept, counts)
            read += count
            done += group.leaves
            progress("rows", done, total)
    return read


_own: dict[str, tuple[Engine, Task]] = {}
"""In a worker's process, what it was started with."""


def _start(url: str, task: Task) -> None:
    _own["own"] = (sa.create_engine(url), task)


def _compare(group: Group) -> Result:
    engine, task = _own["own"]
    database = verifier_for(engine)
    findings = Findings()
    with database.reading(engine) as connection:
        read = RowPass(database.catalog, task).compare(connection, group, findings)
    return read, findings.kept(), findings.counts()
