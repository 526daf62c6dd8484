"""The trail's own entries: what is done with it leaves an event, and, if asked for, each look from the command line."""

from __future__ import annotations

import dataclasses
import getpass
import json
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from typer.testing import CliRunner

import sa_audit
from sa_audit import Audited, ConfigurationError, Encrypt, Event
from sa_audit.capture.erasure import rewrap
from sa_audit.cli.app import app
from sa_audit.model import trail_of
from sa_audit.privacy import KeyRing
from sa_audit.proof import Signer
from sa_audit.seal import seal
from sa_audit.verification import verify
from tests.standing import Tables


class Base(DeclarativeBase):
    pass


sa_audit.configure(Base, keys=KeyRing({"2026": b"k" * 32}), looks=True, testing=True)


class Guest(Audited, Base):
    __tablename__ = "guest"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), info={"sa_audit": Encrypt("id")})


@pytest.fixture
def hotel(engine: sa.Engine, tables: Tables) -> sa.Engine:
    """An engine to the tables, with two guests."""
    tables(engine, Base.metadata)
    with sa_audit.context(actor="desk"), Session(engine) as session:
        session.add_all([Guest(id=1, name="Ann"), Guest(id=2, name="Bob")])
        session.commit()
    return engine


def own(engine: sa.Engine) -> list[tuple[str, str | None, Any]]:
    """Give action, actor and data of the trail's own events."""
    with Session(engine) as session:
        page = sa_audit.trail(session, base=Base, operation="event")
    return [(entry.action, entry.actor, entry.data) for entry in page.entries if isinstance(entry, Event)]


def use(monkeypatch: pytest.MonkeyPatch, trail: Any, keys: KeyRing) -> None:
    """Have another provider."""
    monkeypatch.setattr(trail, "configuration", dataclasses.replace(trail.configuration, keys=keys))
    monkeypatch.setattr(trail, "secrets", None)


def run(engine: sa.Engine, *arguments: str) -> Result:
    """Run a command on the database."""
    place = ["--url", engine.url.render_as_string(hide_password=False), "--models", f"{__name__}:Base"]
    done = CliRunner().invoke(app, [*arguments, *place])
    assert done.exit_code == 0, done.output
    return done


def test_erasing_and_wrapping_anew(hotel: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who destroyed which key and why, and how many were wrapped by what; with the transaction that did it, or not."""
    with sa_audit.context(actor="officer"), Session(hotel) as session:
        sa_audit.erase(session, 1, "request 5", base=Base)
        session.rollback()
        done = sa_audit.erase(session, 1, "request 5", base=Base)
        session.commit()
        assert rewrap(session, base=Base) == 0
        trail = trail_of(Base.metadata)
        assert trail is not None
        ring = KeyRing({"2027": b"n" * 32, "2026": b"k" * 32})
        use(monkeypatch, trail, ring)
        assert rewrap(session, base=Base) == 1
        session.commit()
    assert own(hotel) == [
        ("sa_audit.erased", "officer", {"keys": list(done.keys), "reason": "request 5"}),
        ("sa_audit.rewrapped", "officer", {"keys": 1, "by": "2027"}),
    ]


LOOKS: dict[str, tuple[list[str], dict[str, Any], int | None]] = {
    "log": (["log", "--entity", "Guest", "--limit", "1"], {"entity": "Guest"}, 1),
    "show": (["show", "Guest", "1"], {"model": "Guest", "key": "1"}, 1),
    "diff": (
        ["diff", "Guest", "1", "NOW", "NOW"],
        {"model": "Guest", "key": "1", "from": "NOW", "to": "NOW"},
        0,
    ),
    "as-of": (["as-of", "NOW", "Guest"], {"model": "Guest", "when": "NOW"}, 2),
    "export": (["export", "Guest"], {"model": "Guest", "format": "jsonl"}, None),
}


@pytest.mark.parametrize("command", LOOKS)
def test_a_look_is_recorded(hotel: sa.Engine, command: str) -> None:
    """The question, how much it showed, and who: the user of the operating system, where nobody else is named."""
    arguments, question, rows = LOOKS[command]
    with hotel.connect() as connection:
        made = connection.scalar(sa.select(sa.func.max(Base.metadata.tables["audit_transaction"].c.recorded_at)))
    now = made.isoformat()
    run(hotel, *(now if text == "NOW" else text for text in arguments))
    question = {name: now if text == "NOW" else text for name, text in question.items()}
    user = getpass.getuser()
    action = "sa_audit.exported" if command == "export" else "sa_audit.looked"
    said = {"command": command, "question": question, "rows": rows, "os_user": user}
    assert own(hotel) == [(action, f"os:{user}", said)]


def test_a_look_that_can_not_be_recorded_shows_nothing(hotel: sa.Engine) -> None:
    """It fails, and names the reason."""
    with hotel.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_event RENAME TO audit_event_gone")
    place = ["--url", hotel.url.render_as_string(hide_password=False), "--models", f"{__name__}:Base"]
    done = CliRunner().invoke(app, ["show", "Guest", "1", *place])
    assert done.exit_code != 0
    assert "Ann" not in done.output
    assert "audit_event" in done.output


def test_looks_are_sealed_and_not_recorded_unasked(
    hotel: sa.Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are entries like all others; without `looks` there is none."""
    run(hotel, "show", "Guest", "1")
    signer = Signer.generate("hotel.example/audit")
    seal(hotel, signer, state=tmp_path / "state", metadata=Base)
    assert verify(hotel, signer.verifier, metadata=Base).findings == ()
    trail = trail_of(Base.metadata)
    assert trail is not None
    monkeypatch.setattr(trail, "configuration", dataclasses.replace(trail.configuration, looks=False))
    shown = run(hotel, "show", "Guest", "1", "--json")
    assert json.loads(shown.stdout)
    assert len(own(hotel)) == 1


def test_looks_is_a_yes_or_no() -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigurationError, match="looks='all'"):
        sa_audit.configure(sa.MetaData(), looks="all")  # type: ignore[arg-type]
