"""The models of the project at the stage that BANK_STAGE names; each stage changes one thing more.

Imported by the project's own env.py, from a directory of its own, and by the program that writes the rows.
"""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

import sa_audit
from sa_audit import AuditOptions, Mask, Roles

STAGE = int(os.environ["BANK_STAGE"])
DIALECT = os.environ["BANK_DIALECT"]
PREFIX = os.environ.get("BANK_ROLES")

(ADDED, RENAMED, DROPPED, RETYPED, TABLE_RENAMED, TABLE_DROPPED, TRACKED, MASKED, TRIGGERS, ENUM, COMPUTED, UNTRACKED,
 SCHEMA) = range(1, 14)  # fmt: skip
LAST = SCHEMA


def since(stage: int) -> bool:
    """Tell whether a stage has been reached."""
    return stage <= STAGE


class Base(DeclarativeBase):
    pass


if PREFIX:
    roles = Roles(
        owner=f"{PREFIX}own",
        writer=f"{PREFIX}write",
        reader=f"{PREFIX}read",
        sealer=f"{PREFIX}seal",
        eraser=f"{PREFIX}erase",
    )
    sa_audit.configure(Base, roles=roles, schema="audit", capture="trigger" if since(TRIGGERS) else "session")
else:
    sa_audit.configure(Base, capture="trigger" if since(TRIGGERS) else "session")


def customer_columns() -> list[sa.Column[Any]]:
    """Give the columns of ``customer``: added, renamed, dropped, retyped, masked and computed ones."""
    masked = {"sa_audit": Mask()} if since(MASKED) else {}
    columns: list[sa.Column[Any]] = [
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(50), info=masked),
        sa.Column("code", sa.Integer if since(RETYPED) else sa.String(20)),
    ]
    if since(RENAMED):
        hint = {"sa_audit.renamed_from": "email"} if STAGE == RENAMED else {}
        columns.append(sa.Column("mail", sa.String(80), info=hint))
    else:
        columns.append(sa.Column("email", sa.String(80)))
    if since(ADDED) and not since(DROPPED):
        columns.append(sa.Column("phone", sa.String(20), nullable=False, server_default="none"))
    if since(COMPUTED):
        persisted = None if DIALECT == "sqlite" else True
        columns.append(sa.Column("label", sa.String(80), sa.Computed("upper(mail)", persisted=persisted)))
    return columns


class Customer(sa_audit.Audited, Base):
    __table__ = sa.Table("customer", Base.metadata, *customer_columns())


class Account(sa_audit.Audited, Base):
    __tablename__ = "deposit" if since(TABLE_RENAMED) else "account"
    __audit__ = AuditOptions(renamed_from="account") if STAGE == TABLE_RENAMED else AuditOptions()
    id = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
    owner_id = sa.Column(sa.ForeignKey("customer.id", ondelete="CASCADE", name="fk_account_owner"))
    balance = sa.Column(sa.Numeric(12, 2), nullable=False)
    kind = sa.Column(sa.Enum(*("private", "business", *(["joint"] if since(ENUM) else [])), name="account_kind"))


if not since(TABLE_DROPPED):

    class Note(sa_audit.Audited, Base):
        __tablename__ = "note"
        id = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
        text = sa.Column(sa.String(100))


class Tag(Base):
    __tablename__ = "tag"
    id = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
    label = sa.Column(sa.String(30))


if since(TRACKED) and not since(UNTRACKED):
    sa_audit.track(Tag)

if since(SCHEMA) and DIALECT == "postgresql":

    class Safe(sa_audit.Audited, Base):
        __tablename__ = "safe"
        __table_args__ = {"schema": "vault"}
        id = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
        place = sa.Column(sa.String(30))


Base.registry.configure()
