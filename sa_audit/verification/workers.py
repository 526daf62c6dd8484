"""A verification shared out: what doesn't depend on the log's order goes to processes of their own.

Groups of blocks are compared with their rows there, after the first pass.  While that runs in this process, the others
start, and have the database compare each change with the one before it, which needs nothing of the log.
Imports the room's own parts.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from .continuity import Comparison
from .database import VerifierDatabase, verifier_for
from .log import Group, Log
from .report import Finding, Findings
from .rows import RowPass, Task

Result = tuple[int, tuple[Finding, ...], Counter[tuple[str, str | None]]]


class Workers:
    """Processes that take a share of the work.

    Args:
        pool: the processes, which connect by themselves.
    """

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool
        self._comparisons: list[Future[Result]] = []

    def begin(self, comparisons: Iterable[Comparison]) -> None:
        """Have changes compared with those before them, while the log is read."""
        self._comparisons = [self._pool.submit(_continue, each) for each in comparisons]

    def compare_groups(self, task: Task, groups: list[Group]) -> Iterator[Result]:
        """Yield what the comparison of each group gives, in their order."""
        return self._pool.map(_compare, [task] * len(groups), groups)

    def end(self, findings: Findings) -> None:
        """Take what the comparison of the changes found."""
        for each in self._comparisons:
            _read, kept, counts = each.result()
            findings.merge(kept, counts)


@contextmanager
def processes(engine: Engine, count: int) -> Iterator[Workers | None]:
    """Start processes, or give None for one worker, which is this process.

    Args:
        engine: what they connect to, by its URL.
        count: how many.
    """
    if count == 1:
        yield None
        return
    url = engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(url,)) as pool:
        for _process in range(count):
            pool.submit(_ready)
        try:
            yield Workers(pool)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def compare_all(
    connection: Connection,
    database: VerifierDatabase,
    task: Task,
    log: Log,
    findings: Findings,
    workers: Workers | None,
    progress: Callable[[str, int, int | None], None],
) -> int:
    """Compare the rows of all groups; give how many were read.

    Args:
        connection: in a transaction with pinned settings.
        database: how to read it.
        task: what is common to the groups.
        log: what the first pass gave.
        findings: where findings go.
        workers: other processes, or None.
        progress: see :data:`.operations.Progress`.
    """
    total, done, read = sum(group.leaves for group in log.groups), 0, 0
    progress("rows", 0, total)
    if workers is None:
        passing = RowPass(database.catalog, task)
        for group in log.groups:
            read += passing.compare(connection, group, findings)
            done += group.leaves
            progress("rows", done, total)
        return read
    for group, (count, kept, counts) in zip(log.groups, workers.compare_groups(task, log.groups), strict=True):
        findings.merge(kept, counts)
        read += count
        done += group.leaves
        progress("rows", done, total)
    return read


_own: dict[str, Engine] = {}
"""In a worker's process, what it connects by."""


def _start(url: str) -> None:
    _own["own"] = sa.create_engine(url)


def _ready() -> None:
    """Connect, so that the process is ready before there is work."""
    with _own["own"].connect():
        pass


def _compare(task: Task, group: Group) -> Result:
    engine, findings = _own["own"], Findings()
    database = verifier_for(engine)
    with database.reading(engine) as connection:
        read = RowPass(database.catalog, task).compare(connection, group, findings)
    return read, findings.kept(), findings.counts()


def _continue(comparison: Comparison) -> Result:
    engine, findings = _own["own"], Findings()
    with verifier_for(engine).reading(engine) as connection:
        comparison.run(connection, findings)
    return 0, findings.kept(), findings.counts()
