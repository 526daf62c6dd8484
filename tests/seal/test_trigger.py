"""What the database records by itself is sealed like the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import sa_audit
from sa_audit import Audited
from sa_audit.catalog import blocks
from sa_audit.proof import RowEntry, Signer, decode_entry
from sa_audit.seal.sealer import Sealer
from tests.capture.recorded import trail_at


class Base(DeclarativeBase):
    """The base of a model that triggers record."""


class Ledger(Audited, Base):
    """An audited table."""

    __tablename__ = "ledger_by_trigger"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(sa.String(30))


sa_audit.configure(Base, capture="trigger")


@pytest.fixture
def seal_ledger(engine: sa.Engine, tmp_path: Path) -> Callable[[], int]:
    """Return a function that seals, and gives the number of rows of the history that are in the log."""
    Base.metadata.create_all(engine)
    sealer = Sealer(engine, Signer.generate("ledger"), state=tmp_path / "state", metadata=Base)

    def seal() -> int:
        sealer.seal()
        with engine.connect() as connection:
            entries = [decode_entry(data) for block in blocks(connection, trail_at(Base)) for data in block.entries()]
        number = sealer.file.read()[0].tables  # type: ignore[index]  # it has sealed
        (history,) = (known.number for name, known in number.items() if name.endswith("ledger_by_trigger_history"))
        return len({entry.row for entry in entries if isinstance(entry, RowEntry) and entry.table == history})

    return seal


def test_what_triggers_record_is_sealed(engine: sa.Engine, seal_ledger: Callable[[], int]) -> None:
    """A session's change, and raw SQL that nobody spoke for."""
    with sa_audit.context(actor="alice"), Session(engine) as session:
        session.add(Ledger(id=1, text="a"))
        session.commit()
    assert seal_ledger() == 1
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_by_trigger SET text = 'b'")
    assert seal_ledger() == 2
