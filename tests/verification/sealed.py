"""A sealed and anchored trail to attack, on each database; what was done to it is undone from a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

import sa_audit
from sa_audit import anchors, testing
from sa_audit.anchors import Anchor
from sa_audit.model.history import trail_of
from sa_audit.proof import Checkpoint, Policy, Signer, Verifier
from sa_audit.seal import seal
from sa_audit.verification import Report, verify
from tests.databases import Database
from tests.standing import stand
from tests.verification.models import NOTES, Base, amend, write

ORIGIN = "bank.example/audit"
THIRD = NOTES // 3

_NOTES = "SELECT count(*) FROM note_history"
TOUCHED = "guard-touched"
Found = set[tuple[str, str | None, int | None]]


@dataclass
class Sealed:
    """A trail that was sealed three times, each time anchored."""

    database: Database
    engine: sa.Engine
    directory: Path
    signer: Signer

    @classmethod
    def make(cls, database: Database, directory: Path, signer: Signer | None = None) -> Sealed:
        """Make the trail: the tables, 36 notes and tags, 3 changes, in three sealings."""
        made = cls(database, sa.create_engine(database.url), directory, signer or Signer.generate(ORIGIN))
        stand(database, made.engine, Base.metadata)
        for number in range(3):
            write(made.engine, 1 + number * THIRD, (number + 1) * THIRD)
            amend(made.engine, 1 + number * THIRD)
            made.seal()
        made.keep()
        return made

    @property
    def state(self) -> Path:
        """The sealer's file."""
        return self.directory / "state"

    @property
    def anchors(self) -> list[Anchor]:
        """The anchor file, opened anew."""
        return [anchors.open(f"file:{self.directory / 'anchor'}")]

    def seal(self, *, signer: Signer | Sequence[Signer] | None = None, metadata: Any = Base) -> None:
        """Seal, and anchor."""
        seal(self.engine, signer or self.signer, state=self.state, anchors=self.anchors, metadata=metadata)

    def verify(
        self,
        *,
        anchored: bool = True,
        workers: int = 1,
        touched: bool = False,
        policy: Policy | Verifier | None = None,
        since: Checkpoint | None = None,
    ) -> Report:
        """Verify.

        That guards were made anew, which all that is done with lifted guards entails where a database tells, and the
        undoing of it as well, is left out of the findings if it is not asked for.
        """
        given = self.anchors if anchored else []
        known = policy or self.signer.verifier
        report = verify(self.engine, known, anchors=given, since=since, workers=workers, metadata=Base)
        kept = report.findings if touched else tuple(each for each in report.findings if each.kind != TOUCHED)
        return replace(report, findings=kept)

    def found(self, *, anchored: bool = True, continuity: bool = True, touched: bool = False) -> Found:
        """Give kind, table and row of each finding; those of continuity can be left out, where others entail them."""
        report = self.verify(anchored=anchored, touched=touched)
        found = {(each.kind, each.table, each.row) for each in report.findings}
        return found if continuity else {each for each in found if each[0] != "continuity"}

    def kinds(self, *, anchored: bool = True) -> set[str]:
        """Give the kinds of findings."""
        return {each.kind for each in self.verify(anchored=anchored).findings}

    def scalar(self, statement: str) -> int:
        """Ask for a number."""
        with self.engine.connect() as connection:
            return int(connection.scalar(sa.text(statement)) or 0)

    def stands(self) -> bool:
        """Tell whether the trail is still there: another test may have emptied the database."""
        try:
            return self.scalar("SELECT count(*) FROM kept_note_history" if self._server else _NOTES) > 0
        except sa.exc.DBAPIError:
            self.engine.dispose()
            return False

    @property
    def _server(self) -> bool:
        return self.database.dialect != "sqlite"

    # -- attacks and their traces ----------------------------------------------------------

    @contextmanager
    def unguarded(self) -> Iterator[Connection]:
        """Give the connection of somebody who lifts the guards, and puts them back."""
        with testing.unguarded(self.engine), self.engine.begin() as connection:
            yield connection

    def attack(self, *statements: str, **parameters: object) -> None:
        """Run statements with the guards lifted."""
        with self.unguarded() as connection:
            for statement in statements:
                connection.execute(sa.text(statement), parameters)

    def unrecorded(self, *statements: str) -> None:
        """Run statements past SQLAlchemy, so that nothing is recorded."""
        raw = self.engine.raw_connection()
        try:
            cursor = raw.cursor()
            for statement in statements:
                cursor.execute(statement)
            cursor.close()
            raw.commit()
        finally:
            raw.close()

    def tables(self) -> list[sa.Table]:
        """Give the tables of the trail, those that others depend on first."""
        assert trail_of(Base.metadata) is not None
        return [table for table in Base.metadata.sorted_tables if sa_audit.is_trail_table(table)]

    def keep(self) -> None:
        """Put a copy of everything aside."""
        for name in ("state", "anchor"):
            shutil.copyfile(self.directory / name, self.directory / f"{name}.kept")
        if not self._server:
            self.engine.dispose()
            shutil.copyfile(self._file(), self.directory / "kept.db")
            return
        with self.engine.begin() as connection:
            for table in Base.metadata.sorted_tables:
                connection.execute(sa.text(f"CREATE TABLE kept_{table.name} AS SELECT * FROM {table.name}"))

    def undo(self) -> None:
        """Have everything as it was when the copy was put aside; the columns have to be the same."""
        for name in ("state", "anchor"):
            shutil.copyfile(self.directory / f"{name}.kept", self.directory / name)
        if not self._server:
            self.engine.dispose()
            shutil.copyfile(self.directory / "kept.db", self._file())
            return
        with self.unguarded() as connection:
            for table in self.tables():
                connection.execute(sa.text(f"DELETE FROM {table.name}"))
                connection.execute(sa.text(f"INSERT INTO {table.name} SELECT * FROM kept_{table.name}"))
        others = [table.name for table in Base.metadata.sorted_tables if not sa_audit.is_trail_table(table)]
        self.unrecorded(
            *(
                text
                for name in others
                for text in (f"DELETE FROM {name}", f"INSERT INTO {name} SELECT * FROM kept_{name}")
            )
        )

    def _file(self) -> str:
        return str(self.database.url.database)
