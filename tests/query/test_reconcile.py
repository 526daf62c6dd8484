"""Finding what went past the trail."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from sa_audit import CaptureMissing, NotAudited
from sa_audit.query import reconcile

from .models import Account, Base, Engineer, Person, Plain, Player, Sample, Team, membership, setting

Raw = Callable[..., None]


@pytest.fixture
def raw(bank: sa.Engine) -> Raw:
    """Return a function that runs SQL on a driver's connection, past SQLAlchemy, and commits."""

    def run(*statements: str) -> None:
        connection = bank.raw_connection()
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        connection.commit()
        connection.close()

    return run


def _fill(session: Session) -> None:
    session.add_all(
        [
            Account(id=1, owner="ann", balance=Decimal("1.50"), pin="1", seen="x"),
            Account(id=2, owner="bob", balance=Decimal("2.50")),
            Engineer(id=1, name="eve", skill="c"),
            Sample(id=1, text="Ann", data={"a": 1}, ratio=0.1, single=0.1, blob=b"\0"),
            Team(id=1, name="reds", players=[Player(id=1, name="a"), Player(id=2, name="b")]),
        ]
    )
    session.execute(sa.insert(setting), [{"scope": "s", "nom": "a", "valeur": "1"}])
    session.commit()
    session.get_one(Account, 2).balance = None
    session.delete(session.get_one(Player, 2))
    session.get_one(Team, 1).players = [session.get_one(Player, 1)]
    session.commit()


def test_recorded_changes_are_no_discrepancy(session: Session) -> None:
    """After inserts, updates and deletes through the session nothing is found."""
    _fill(session)
    for entity in (Account, Person, Sample, Team, Player, setting, membership):
        assert list(reconcile(session, entity)) == []


def test_changed_unrecorded_and_missing(session: Session, raw: Raw) -> None:
    """Each kind is told, with the attributes that differ; masked and excluded columns are not compared."""
    _fill(session)
    raw(
        "UPDATE account SET balance = 1.25, pin = 'z', seen = 'z' WHERE id = 1",
        "INSERT INTO account (id, \"own er%%\", balance) VALUES (3, 'x', 1)".replace("%%", "%")
        if session.get_bind().dialect.name != "mysql" and session.get_bind().dialect.name != "mariadb"
        else "INSERT INTO account (id, `own er%`, balance) VALUES (3, 'x', 1)",
        "DELETE FROM account WHERE id = 2",
    )
    found = {(entry.kind, entry.identity): dict(entry.diff) for entry in reconcile(session, Account)}
    assert found == {
        ("changed", (1,)): {"balance": (Decimal("1.50"), Decimal("1.25"))},
        ("unrecorded", (3,)): {
            "id": (None, 3),
            "owner": (None, "x"),
            "balance": (None, Decimal("1.00")),
            "keys": (None, None),
        },
        ("missing", (2,)): {"id": (2, None), "owner": ("bob", None), "balance": (None, None), "keys": (None, None)},
    }


def test_row_that_came_back_unrecorded(session: Session, raw: Raw) -> None:
    """A row whose history ends with a delete and which is there again is unrecorded."""
    _fill(session)
    raw("INSERT INTO player (id, name) VALUES (2, 'b')")
    (found,) = reconcile(session, Player)
    assert (found.kind, found.identity, found.entity, found.table) == ("unrecorded", (2,), "Player", "player")


def test_differences_that_equality_hides(session: Session, raw: Raw) -> None:
    """Letter case, JSON text and bytes are compared as they are stored."""
    _fill(session)
    raw("UPDATE sample SET text = 'ANN', data = '{\"a\":  1}' WHERE id = 1")
    (found,) = reconcile(session, Sample)
    assert set(found.diff) == {"text", "data"}
    assert found.diff["text"] == ("Ann", "ANN")


def test_hierarchy_and_plain_tables(session: Session, raw: Raw) -> None:
    """All tables of a hierarchy are compared, and plain tables by their column names."""
    _fill(session)
    raw("UPDATE engineer SET skill = 'sql'", "UPDATE setting SET value = '2'")
    (skill,) = reconcile(session, Person)
    assert (skill.table, skill.identity, dict(skill.diff)) == ("engineer", (1,), {"skill": ("c", "sql")})
    (value,) = reconcile(session, setting)
    assert (value.identity, dict(value.diff)) == (("s", "a"), {"value": ("1", "2")})


def test_table_without_primary_key(session: Session, raw: Raw) -> None:
    """Rows of an association table are counted by their keys."""
    _fill(session)
    raw("INSERT INTO membership (team_id, player_id) VALUES (1, 1)")
    (surplus,) = reconcile(session, membership)
    assert (surplus.kind, surplus.identity) == ("unrecorded", (1, 1))
    session.rollback()
    raw("DELETE FROM membership")
    (missing,) = reconcile(session, membership)
    assert (missing.kind, missing.identity) == ("missing", (1, 1))
    assert dict(missing.diff) == {"team_id": (1, None), "player_id": (1, None)}


def test_what_can_not_be_compared(session: Session, engine: sa.Engine) -> None:
    """What is not audited, and a database without the trail, are told."""
    with pytest.raises(NotAudited, match="Plain is not audited"):
        reconcile(session, Plain)


def test_database_without_trail(engine: sa.Engine) -> None:
    """A database without the trail's tables has not nothing to report."""
    entity: Any = Account
    Base.metadata.tables["account"].create(engine)
    with Session(engine) as session, pytest.raises(CaptureMissing, match="account_history"):
        list(reconcile(session, entity))
