"""An application under SQLAlchemy-Continuum, run as a program of its own: the manager of Continuum is process-wide.

Writes articles, tags and their links, and prints as JSON what Continuum says of every version.  Usage::

    python continuum_program.py URL validity|subquery [more]

With `more`, the tables are there already, and one more transaction is written.
"""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
import sqlalchemy_continuum as continuum
from sqlalchemy.orm import Session, configure_mappers, declarative_base, relationship
from sqlalchemy_continuum.plugins import PropertyModTrackerPlugin, TransactionMetaPlugin
from sqlalchemy_continuum.plugins.base import Plugin

WHO: dict[str, Any] = {}


class Who(Plugin):
    def transaction_args(self, uow: Any, session: Any) -> dict[str, Any]:
        return dict(WHO)


continuum.make_versioned(
    user_cls="User",
    plugins=[Who(), PropertyModTrackerPlugin(), TransactionMetaPlugin()],
    options={"strategy": sys.argv[2]},
)
Base: Any = declarative_base()

article_tag = sa.Table(
    "article_tag",
    Base.metadata,
    sa.Column("article_id", sa.ForeignKey("article.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
)


class User(Base):
    __tablename__ = "app_user"
    id = sa.Column(sa.Integer, primary_key=True)


class Article(Base):
    __tablename__ = "article"
    __versioned__ = {"exclude": ["seen"]}
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(40), nullable=False)
    price = sa.Column(sa.Numeric(10, 2))
    open = sa.Column(sa.Boolean, default=True)
    body = sa.Column(sa.Text)
    secret = sa.Column(sa.String(20))
    seen = sa.Column(sa.Integer)
    tags = relationship("Tag", secondary=article_tag)


class Tag(Base):
    __tablename__ = "tag"
    __versioned__: dict[str, Any] = {}
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(40))


configure_mappers()


def commit(session: Session, user: int | None = 1, addr: str | None = "203.0.113.7") -> None:
    """Commit as a user, a moment after the last commit."""
    WHO.update(user_id=user, remote_addr=addr)
    session.commit()
    time.sleep(0.002)


def write(session: Session) -> None:
    """Insert, change, delete, bring back; several changes in one transaction; links made and cut."""
    nail, saw, oak = (
        Article(id=1, name="nail", price=Decimal("1.50"), secret="s1"),
        Article(id=2, name="saw"),
        Tag(id=1),
    )
    session.add_all([nail, saw, oak])
    commit(session)
    nail.name, nail.secret, oak.name = "näil 'x'", "s2", "oak"
    nail.tags.append(oak)
    commit(session, user=2, addr=None)
    nail.seen = 5
    commit(session)
    nail.price = Decimal("2.00")
    session.flush()
    nail.price = Decimal("3.00")
    nail.body = None
    saw.open = False
    tx = continuum.versioning_manager.unit_of_work(session).create_transaction(session)
    tx.meta = {"ticket": "T-17"}
    commit(session)
    nail.tags.remove(oak)
    session.delete(saw)
    commit(session, user=None)
    session.add(Article(id=2, name="saw again", price=Decimal("0.00")))
    commit(session)
    session.add(Article(id=3, name="short-lived"))
    commit(session)
    session.delete(session.get(Article, 3))
    commit(session)


def told(session: Session) -> dict[str, Any]:
    """Give transactions and versions as Continuum's own classes show them."""
    transactions = session.scalars(sa.select(continuum.versioning_manager.transaction_cls)).all()
    found: dict[str, Any] = {
        "transactions": [
            {"id": tx.id, "at": tx.issued_at.isoformat(), "user": tx.user_id, "addr": tx.remote_addr}
            for tx in transactions
        ]
    }
    for model in (Article, Tag):
        version = continuum.version_class(model)
        names = [column.key for column in sa.inspect(model).columns if column.key != "seen"]
        found[model.__tablename__] = [
            {
                "tx": row.transaction_id,
                "op": row.operation_type,
                "state": {name: _plain(getattr(row, name)) for name in names},
                "changed": {name: [_plain(value) for value in pair] for name, pair in row.changeset.items()},
            }
            for row in session.scalars(sa.select(version).order_by(version.transaction_id, version.id))
        ]
    links = Base.metadata.tables["article_tag_version"]
    found["article_tag"] = [
        {
            "tx": row.transaction_id,
            "op": row.operation_type,
            "state": {"article_id": row.article_id, "tag_id": row.tag_id},
        }
        for row in session.execute(sa.select(links).order_by(links.c.transaction_id))
    ]
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value


def main() -> None:
    """Do it, and print what was done."""
    engine = sa.create_engine(sys.argv[1])
    with Session(engine, autoflush=False) as session:
        if "more" in sys.argv:
            session.get(Article, 1).name = "more"
            commit(session)
        else:
            Base.metadata.create_all(engine)
            session.add_all([User(id=1), User(id=2)])
            session.commit()
            write(session)
        assert "sa_audit" not in sys.modules
        print(json.dumps(told(session)))


main()
