"""Reverting a transaction."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from sa_audit import Conflict, NotAudited, context
from sa_audit.query import history, reconcile, revert, trail

from .models import Account, Base, Engineer, Match, Node, Page, Person, Player, Secret, Team, membership, setting

pytestmark = pytest.mark.both_captures

TABLES = [
    table
    for name, table in Base.metadata.tables.items()
    if name
    in (
        "account",
        "person",
        "engineer",
        "team",
        "player",
        "match",
        "membership",
        "node",
        "setting",
    )
]


def _copy(session: Session) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: sorted((tuple(row) for row in session.execute(sa.select(table))), key=repr) for table in TABLES}


def _last(session: Session) -> int:
    after, last = None, None
    while True:
        page = trail(session, after=after, base=Base)
        last = page.entries[-1].transaction.id if page.entries else last
        if page.next is None:
            assert last is not None
            return last
        after = page.next


def _fill(session: Session) -> None:
    players = [Player(id=1, name="a"), Player(id=2, name="b")]
    session.add_all(
        [
            Account(id=1, owner="ann", balance=Decimal("1.50"), pin="1", seen="x"),
            Account(id=2, owner="bob", balance=Decimal("2.50")),
            Engineer(id=1, name="eve", skill="c"),
            Team(id=1, name="reds", players=players, matches=[Match(number=1, score="1:0"), Match(number=2)]),
            Team(id=2, name="blues", players=players[:1]),
            Node(id=1, parent=Node(id=2, parent=Node(id=3))),
        ]
    )
    session.execute(sa.insert(setting), [{"scope": "s", "nom": "a", "valeur": "1"}])
    session.commit()


def _change_much(session: Session) -> None:
    """Change all kinds of rows, in several flushes: the names of two teams are swapped by way of a third."""
    account, engineer = session.get_one(Account, 1), session.get_one(Person, 1)
    account.balance, account.pin, account.seen = None, "2", "y"
    engineer.name = "EVE"
    session.add_all([Account(id=3, owner="new"), Team(id=5, name="greens", players=[session.get_one(Player, 1)])])
    session.delete(session.get_one(Account, 2))
    session.flush()
    account.balance = Decimal("7.00")
    blues = session.get_one(Team, 2)
    blues.name = "none"
    session.flush()
    session.delete(engineer)
    session.get_one(Team, 1).name = "blues"
    session.flush()
    blues.name = "reds"
    blues.players = [session.get_one(Player, 2)]
    for number in (1, 2, 3):
        session.delete(session.get_one(Node, number))
    session.execute(sa.update(setting).values(valeur="2"))
    session.flush()
    session.delete(session.get_one(Team, 1))
    session.commit()


def test_everything_is_as_before(session: Session) -> None:
    """Inserts, updates, deletes, cascades, association rows and swapped unique values are all undone."""
    _fill(session)
    before = _copy(session)
    with context(actor="mallory"):
        _change_much(session)
    assert _copy(session) != before
    with context(actor="officer:1", reason="undo"):
        assert revert(session, _last(session)) > 10
        session.commit()
    assert {name: rows for name, rows in _copy(session).items() if name != "account"} == {
        name: rows for name, rows in before.items() if name != "account"
    }
    account = session.get_one(Account, 1)
    assert (account.balance, account.pin, account.seen) == (Decimal("1.50"), "2", "y")
    assert session.get(Account, 3) is None
    assert session.get_one(Account, 2).balance == Decimal("2.50")
    assert history(session, Account, 3)[-1].actor == "officer:1"
    for entity in (Account, Person, Team, Player, Match, Node, setting, membership):
        assert list(reconcile(session, entity)) == []


def test_a_revert_can_be_reverted(session: Session) -> None:
    """The new changes are a transaction like any other."""
    _fill(session)
    before = _copy(session)
    session.delete(session.get_one(Team, 1))
    session.commit()
    after = _copy(session)
    deletion = _last(session)
    revert(session, deletion)
    session.commit()
    assert _copy(session) == before
    revert(session, _last(session))
    session.commit()
    assert _copy(session) == after
    with pytest.raises(Conflict, match="later changes"):
        revert(session, deletion)


def test_later_changes_stand_in_the_way(session: Session) -> None:
    """A row that was changed later is named, with who changed it, and nothing is written."""
    _fill(session)
    account = session.get_one(Account, 1)
    account.owner = "x"
    session.get_one(Account, 2).owner = "x"
    session.commit()
    first = _last(session)
    with context(actor="teller:9"):
        account.owner = "y"
        session.commit()
    recorded = len(trail(session, limit=1000).entries)
    with pytest.raises(Conflict, match=r"update of Account 1 in transaction \d+ by teller:9"):
        revert(session, first)
    session.commit()
    assert len(trail(session, limit=1000).entries) == recorded


def test_other_entries_of_a_transaction_stay(session: Session) -> None:
    """What another context did in the same database transaction is another row of audit_transaction."""
    _fill(session)
    with context(actor="a"):
        session.get_one(Account, 1).owner = "x"
        session.flush()
    with context(actor="b"):
        session.get_one(Account, 2).owner = "y"
        session.commit()
    revert(session, history(session, Account, 1)[-1].transaction.id)
    session.commit()
    assert (session.get_one(Account, 1).owner, session.get_one(Account, 2).owner) == ("ann", "y")


@pytest.mark.session_capture("triggers record them")
def test_unrecorded_changes_stand_in_the_way(session: Session, bank: sa.Engine) -> None:
    """A row that something changed past the trail is not overwritten."""
    _fill(session)
    session.get_one(Account, 1).balance = Decimal("5.00")
    session.commit()
    last = _last(session)
    raw = bank.raw_connection()
    raw.cursor().execute("UPDATE account SET balance = 6 WHERE id = 1")
    raw.commit()
    raw.close()
    with pytest.raises(Conflict, match=r"not as they were recorded.*Account 1"):
        revert(session, last)


def test_referring_rows_stand_in_the_way(session: Session) -> None:
    """An inserted row that others refer to by now is not deleted, since a cascade would take them along."""
    session.add(Team(id=1, name="reds"))
    session.commit()
    first = _last(session)
    session.add(Match(team_id=1, number=5))
    session.commit()
    with pytest.raises(Conflict, match=r"referred to by others: match \(1, 5\)"):
        revert(session, first)
    session.rollback()
    session.delete(session.get_one(Match, (1, 5)))
    session.commit()
    assert revert(session, first) == 1
    session.commit()
    assert session.get(Team, 1) is None


def test_version_counts_on(session: Session) -> None:
    """Undoing an update or a delete gives the row a version that it never had."""
    page = Page(id=1, text="one")
    session.add(page)
    session.commit()
    page.text = "two"
    session.commit()
    revert(session, _last(session))
    session.commit()
    assert (page.text, page.version) == ("one", 3)
    session.delete(page)
    session.commit()
    revert(session, _last(session))
    session.commit()
    back = session.get_one(Page, 1)
    assert (back.text, back.version) == ("one", 4)


def test_what_can_not_be_reverted(session: Session) -> None:
    """An unknown transaction, and a delete of a row whose masked value is needed, are refused."""
    session.add(Secret(id=1, name="s", pin="1"))
    session.commit()
    with pytest.raises(NotAudited, match="no transaction 999"):
        revert(session, 999)
    session.delete(session.get_one(Secret, 1))
    session.commit()
    with pytest.raises(NotAudited, match="column pin is masked"):
        revert(session, _last(session))
    session.commit()
    assert session.get(Secret, 1) is None


def test_several_sessions(session: Session, open_session: Callable[[], Session]) -> None:
    """A revert sees what other sessions have committed since its own began."""
    _fill(session)
    session.get_one(Account, 1).owner = "x"
    session.commit()
    last = _last(session)
    assert session.get_one(Account, 2).owner == "bob"
    other = open_session()
    other.get_one(Account, 1).owner = "y"
    other.commit()
    with pytest.raises(Conflict):
        revert(session, last)
