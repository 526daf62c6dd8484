"""`AuditOptions(attempts=True)`: what a rolled-back transaction leaves."""

from __future__ import annotations

import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit

from .models import Payment, Plain, Token
from .test_record import events

ACTION = "sa_audit.rolled_back"


def seed(engine: sa.Engine) -> int:
    """Give the key of a committed payment."""
    with Session(engine) as session:
        payment = Payment(state="new")
        session.add(payment)
        session.commit()
        return payment.id


def test_a_rollback_leaves_who_which_rows_and_the_error(shop: sa.Engine) -> None:
    """One durable event, under the context of the change, not of the rollback."""
    key = seed(shop)

    def pay() -> None:
        with Session(shop) as session, session.begin():
            with sa_audit.context(actor="bob", reason="fraud?"):
                session.get_one(Payment, key).state = "paid"
                session.flush()
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        pay()
    (event,) = events(shop, action=ACTION)
    assert (event.actor, event.reason, event.table, event.identity) == ("bob", "fraud?", "payment", (key,))
    assert event.data is not None
    assert event.data["rows"] == [{"table": "payment", "identity": f"[{key}]", "operation": "update"}]
    assert event.data["error"] == "ValueError: refused"


def test_a_refused_statement_leaves_the_database_error(shop: sa.Engine) -> None:
    """A change that the database refuses is an attempt, though nothing was recorded of it."""
    seed(shop)
    with sa_audit.context(actor="bob"), Session(shop) as session:
        session.add(Payment(state="new"))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
    (event,) = events(shop, action=ACTION)
    assert event.actor == "bob"
    assert event.data is not None
    assert event.data["tables"] == ["payment"]
    assert event.data["error"].startswith("IntegrityError: ")


def test_closing_a_session_is_a_rollback_too(shop: sa.Engine) -> None:
    """However the transaction ends, if it isn't committed."""
    key = seed(shop)
    with Session(shop) as session:
        session.execute(sa.delete(Payment))
    (event,) = events(shop, action=ACTION)
    assert event.data is not None
    assert [(row["identity"], row["operation"]) for row in event.data["rows"]] == [(f"[{key}]", "delete")]


def test_no_value_of_a_masked_column_is_said(shop: sa.Engine) -> None:
    """Where a column has a policy, the error is named without its message."""
    key = uuid.uuid4()
    with Session(shop) as session:
        session.add(Token(id=key, secret="s"))
        session.commit()
    with Session(shop) as session:
        session.execute(sa.update(Token).values(secret="canary"))
        with pytest.raises(sa.exc.IntegrityError):
            session.execute(sa.insert(Token).values(id=key, secret="canary"))
    (event,) = events(shop, action=ACTION)
    assert event.data is not None
    assert event.data["error"] == "IntegrityError"
    assert event.data["rows"][0]["identity"] == f'["{key}"]'
    assert "canary" not in repr(event)


def test_what_is_committed_or_unaudited_leaves_nothing(shop: sa.Engine) -> None:
    """Commits, reads and writes of other models are no attempts."""
    key = seed(shop)
    with Session(shop) as session:
        session.get_one(Payment, key).state = "paid"
        session.commit()
        session.get_one(Payment, key)
        session.rollback()
        session.add(Plain(id=7))
        session.flush()
        session.rollback()
    assert events(shop, action=ACTION) == []
