"""PostgreSQL as it is run: a standby that is promoted without the last commits, and a dump restored elsewhere.

The clusters are the test's own, made by the programs of the wheel.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import sa_audit
from sa_audit import anchors
from sa_audit.proof import Checkpoint, IncarnationEntry, Signer
from sa_audit.seal.sealer import Sealer
from tests import servers

from .bank import Base, Log, add, present

pytestmark = pytest.mark.slow


@dataclass
class Cluster:
    """A cluster of the test's own."""

    directory: Path
    programs: Path
    account: Any
    port: int = field(default_factory=servers._free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its database, for SQLAlchemy."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def place(self) -> list[str]:
        """How its programs connect."""
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]

    def run(self, program: str, *arguments: object) -> None:
        """Run a program as the cluster's account."""
        servers._run_as(self.account, [self.programs / program, *arguments], self.directory.parent)

    def make(self) -> Cluster:
        """Make it, empty."""
        self.run(
            "initdb", "-D", self.directory, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-N"
        )
        return self.start()

    def standby(self, directory: Path) -> Cluster:
        """Give a standby of it as it is now, which does not run yet."""
        made = Cluster(directory, self.programs, self.account)
        self.run("pg_basebackup", *self.place, "-D", directory, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")
        return made

    def start(self) -> Cluster:
        """Start it, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.directory.parent / f"{self.directory.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.directory), *options],
                stdout=log,
                stderr=log,
                cwd=self.directory.parent,
                **servers._identity(self.account),
            )
        plain = self.url.replace("+psycopg", "")
        answers = servers._connects(lambda: psycopg.connect(plain, connect_timeout=5), psycopg.OperationalError)
        assert servers._wait_until(answers, 60), "the cluster did not start"
        return self

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)


@pytest.fixture
def clusters() -> Iterator[Callable[[str], Cluster]]:
    """Return a function that describes a cluster of a name; those that run are stopped."""
    programs = servers.bundled_postgresql(18)
    if programs is None:
        pytest.skip("no wheel with PostgreSQL 18 is installed")
    account = servers._account()
    home = Path(tempfile.mkdtemp(prefix="sa-audit-cluster-"))
    home.chmod(0o755)
    work = home / "work"
    servers._make_directory(work, account)
    found = servers._executable(programs, "postgres", work, account)
    made: list[Cluster] = []

    def describe(name: str) -> Cluster:
        made.append(Cluster(work / name, found, account))
        return made[-1]

    yield describe
    for cluster in made:
        cluster.stop()
    shutil.rmtree(home, ignore_errors=True)


@dataclass
class Bank:
    """What seals and verifies, whatever cluster it is."""

    signer: Signer
    directory: Path

    def anchors(self) -> list[Any]:
        """Give the anchor, opened anew."""
        return [anchors.open(f"file:{self.directory}/anchors")]

    def seal(self, engine: sa.Engine) -> Checkpoint | None:
        """Seal once."""
        return Sealer(engine, self.signer, state=self.directory / "state", anchors=self.anchors(), metadata=Base).seal()

    def rebase(self, engine: sa.Engine) -> None:
        """Rebase, as an operator would."""
        sa_audit.rebase(engine, state=self.directory / "state", operator="olga", reason="moved", metadata=Base)

    def kinds(self, engine: sa.Engine, *, anchored: bool = True) -> set[str]:
        """Verify; give the kinds of findings."""
        given = self.anchors() if anchored else []
        return {
            each.kind for each in sa_audit.verify(engine, self.signer.verifier, anchors=given, metadata=Base).findings
        }


@pytest.fixture
def bank(tmp_path: Path, signer: Signer) -> Bank:
    """A key, a state file and an anchor."""
    return Bank(signer, tmp_path)


@pytest.fixture
def engines() -> Iterator[Callable[[Cluster], sa.Engine]]:
    """Return a function that gives an engine to a cluster."""
    with ExitStack() as stack:

        def connect(cluster: Cluster) -> sa.Engine:
            engine = sa.create_engine(cluster.url)
            stack.callback(engine.dispose)
            return engine

        yield connect


def promoted(primary: Cluster, standby: Cluster, engine: sa.Engine) -> None:
    """Have the primary crash, and promote a standby that has not got its last commits."""
    engine.dispose()
    primary.stop()
    standby.start()
    with psycopg.connect(standby.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SELECT pg_promote(true, 60)")


def test_a_standby_that_lost_sealed_commits(
    clusters: Callable[[str], Cluster], bank: Bank, engines: Callable[[Cluster], sa.Engine]
) -> None:
    """Silent without an anchor, found with it; nothing is sealed on, and no rebase makes up for the leaves."""
    primary = clusters("primary").make()
    first = engines(primary)
    Base.metadata.create_all(first)
    add(first, 1, 2)
    bank.seal(first)
    other = clusters("standby")
    standby = primary.standby(other.directory)
    other.port = standby.port
    add(first, 3)
    bank.seal(first)
    promoted(primary, other, first)
    second = engines(other)
    assert bank.kinds(second, anchored=False) == set()
    assert bank.kinds(second) == {"log-cut", "checkpoint-missing"}
    with pytest.raises(sa_audit.SealRefused, match="an older copy of the database was restored"):
        bank.seal(second)
    with pytest.raises(sa_audit.SealRefused, match="can't be made up for"):
        bank.rebase(second)


def test_a_standby_that_lost_what_was_not_sealed(
    clusters: Callable[[str], Cluster], bank: Bank, engines: Callable[[Cluster], sa.Engine]
) -> None:
    """It has the same identifier and another timeline: refused until somebody says so, and then nothing alarms."""
    primary = clusters("primary").make()
    first = engines(primary)
    Base.metadata.create_all(first)
    add(first, 1, 2)
    bank.seal(first)
    other = clusters("standby")
    other.port = primary.standby(other.directory).port
    for key in range(10, 13):
        add(first, key)
    promoted(primary, other, first)
    second = engines(other)
    with pytest.raises(sa_audit.SealRefused, match="on timeline 2, and was sealed on 1"):
        bank.seal(second)
    bank.rebase(second)
    for key in range(20, 24):  # under transaction ids that the lost ones had
        add(second, key)
        bank.seal(second)
    assert bank.kinds(second) == set()
    log = Log(second, bank.signer.verifier)
    assert log.rows() == present(second)
    (said,) = log.of(IncarnationEntry)
    assert (said.old.timeline, said.new.timeline, said.old.system) == (1, 2, said.new.system)
    assert all(loss.lost == () for loss in said.tables)


def test_a_dump_that_is_restored_elsewhere(
    clusters: Callable[[str], Cluster], bank: Bank, engines: Callable[[Cluster], sa.Engine]
) -> None:
    """Everything is made anew there: refused until somebody says so, and then nothing alarms, guards included."""
    old = clusters("old").make()
    first = engines(old)
    Base.metadata.create_all(first)
    add(first, 1, 2)
    bank.seal(first)
    add(first, 3)
    dump = old.directory.parent / "dump.sql"
    old.run("pg_dump", *old.place, "-f", dump, "postgres")
    first.dispose()
    old.stop()
    new = clusters("new").make()
    new.run("psql", *new.place, "-v", "ON_ERROR_STOP=1", "-q", "-f", dump, "postgres")
    second = engines(new)
    with pytest.raises(sa_audit.SealRefused, match="another database than the one that was sealed"):
        bank.seal(second)
    assert bank.kinds(second) >= {"table-replaced"}
    bank.rebase(second)
    for key in range(10, 13):
        add(second, key)
        bank.seal(second)
    assert bank.kinds(second) == set()
    assert Log(second, bank.signer.verifier).rows() == present(second)
