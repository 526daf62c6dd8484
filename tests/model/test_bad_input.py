"""What can't be recorded as it is declared is refused where it is declared, naming the value and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

import sa_audit
from sa_audit import Audited, AuditOptions, ConfigurationError, Mask
from tests.model.test_declaration import new_base


def table(*columns: sa.Column[Any], name: str = "account", key: bool = True, **options: Any) -> sa.Table:
    """Give a table with the columns, in a MetaData of its own."""
    keys = [sa.Column("id", sa.Integer, primary_key=True)] if key else []
    return sa.Table(name, options.pop("metadata", None) or sa.MetaData(), *keys, *columns, **options)


def with_table_in_the_way(name: str) -> sa.Table:
    """Give a table whose MetaData has another table of that name."""
    found = table()
    table(name=name, metadata=found.metadata)
    return found


def tracked_twice() -> None:
    """Audit a table, and then again with other options."""
    found = table()
    sa_audit.track(found)
    sa_audit.track(found, AuditOptions(history_table="past"))


def history_of_two() -> None:
    """Give two tables one history."""
    found = table()
    sa_audit.track(found, AuditOptions(history_table="past"))
    sa_audit.track(table(name="other", metadata=found.metadata), AuditOptions(history_table="past"))


def configured_twice() -> None:
    """Configure a MetaData, and then again without the first call's requirement."""
    metadata = sa.MetaData()
    sa_audit.configure(metadata, require_actor=True)
    sa_audit.configure(metadata, require_actor=True)  # the same again is no matter
    sa_audit.configure(metadata, testing=True)


def name(length: int) -> str:
    """Give a table's name of so many bytes, in letters of two."""
    return "æ" * (length // 2)


DECLARATIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "no key": (
        lambda: sa_audit.track(table(sa.Column("n", sa.Integer), key=False)),
        "table account has no primary key, so its rows can't be told apart: give it one",
    ),
    "reserved column": (
        lambda: sa_audit.track(table(sa.Column("audit_at", sa.DateTime))),
        "column account.audit_at has a name that the history keeps for itself: call it something else",
    ),
    "reserved column in other letters": (
        lambda: sa_audit.track(table(sa.Column("Audit_TX", sa.Integer))),
        "column account.Audit_TX has a name that the history keeps for itself",
    ),
    "reserved column that comes later": (
        lambda: (sa_audit.track(found := table()), found.append_column(sa.Column("audit_op", sa.Integer))),
        "column account.audit_op has a name that the history keeps for itself",
    ),
    "long name": (
        lambda: sa_audit.track(table(name=name(56))),
        f"'{name(56)}_history', which is longer than 63 bytes: give a shorter one with AuditOptions(history_table=...)",
    ),
    "long name of choice": (
        lambda: sa_audit.track(table(), AuditOptions(history_table=name(64))),
        "longer than 63 bytes",
    ),
    "name in use": (
        lambda: sa_audit.track(with_table_in_the_way("account_history")),
        "table account_history is in the way of the history of account (it has no column 'audit_id'): name the history",
    ),
    "name of the trail's in use": (
        lambda: sa_audit.track(with_table_in_the_way("audit_transaction")),
        "table audit_transaction is in the way of the trail's own table of that name: rename it, or have the trail in "
        "a schema of its own",
    ),
    "one history for two tables": (
        history_of_two,
        "past is the history of account already: name that of other with AuditOptions(history_table=...)",
    ),
    "table of the trail": (
        lambda: (sa_audit.track(found := table()), sa_audit.track(found.metadata.tables["account_history"])),
        "account_history is a table of the trail itself",
    ),
    "other options": (tracked_twice, "account is audited already, with AuditOptions("),
    "options of another type": (
        lambda: sa_audit.track(table(), {"history_table": "past"}),  # type: ignore[arg-type] # that is the test
        "{'history_table': 'past'}, given for account: give an instance of AuditOptions",
    ),
    "no table": (lambda: sa_audit.track(42), "track(42): give a mapped class or a sqlalchemy.Table"),
    "class that is not mapped": (lambda: sa_audit.track(dict), "a class has to be mapped before it is tracked"),
    "policy of a key": (
        lambda: sa_audit.track(table(sa.Column("k", sa.Integer, primary_key=True, info={"sa_audit": Mask()}))),
        "column account.k is part of the primary key and has the policy Mask()",
    ),
    "policy that is none": (
        lambda: sa_audit.track(table(sa.Column("pin", sa.String(4), info={"sa_audit": Mask}))),
        "info['sa_audit'] of column account.pin is <class 'sa_audit.model.policy.Mask'>: give an instance of a policy",
    ),
    "unknown reads": (lambda: AuditOptions(reads="often"), "AuditOptions(reads='often'): give False"),  # type: ignore[arg-type] # that is the test
    "history name that is none": (
        lambda: AuditOptions(history_table=5),  # type: ignore[arg-type] # that is the test
        "AuditOptions(history_table=5): give a name, or leave it out",
    ),
    "former name that is none": (
        lambda: AuditOptions(renamed_from=""),
        "AuditOptions(renamed_from=''): give a name, or leave it out",
    ),
    "schema that is none": (
        lambda: sa_audit.configure(sa.MetaData(), schema=5),  # type: ignore[arg-type] # that is the test
        "configure(schema=5): give the name of a schema, or leave it out",
    ),
    "no base": (lambda: sa_audit.configure(42), "configure(42): give a declarative base or a sqlalchemy.MetaData"),
    "unknown text_dml": (
        lambda: sa_audit.configure(sa.MetaData(), text_dml="log"),  # type: ignore[arg-type] # that is the test
        "configure(text_dml='log'): give 'refuse' or 'allow'",
    ),
    "switch that is no switch": (
        lambda: sa_audit.configure(sa.MetaData(), require_actor="no"),  # type: ignore[arg-type] # that is the test
        "configure(require_actor='no'): give True or False",
    ),
    "configured twice": (
        configured_twice,
        "configure() was called before, with Configuration(schema=None, capture='session', require_actor=True",
    ),
}


@pytest.mark.parametrize("case", DECLARATIONS)
def test_refused(case: str) -> None:
    """Each declaration that can't stand is refused with its value and the way out."""
    declare, words = DECLARATIONS[case]
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        declare()


def test_the_longest_name_that_fits() -> None:
    """A history's name may have 63 bytes, and its indexes and key get names that fit as well."""
    metadata = sa.MetaData()
    for length in (54, 55):
        sa_audit.track(table(sa.Column("o", sa.ForeignKey(f"{'a' * length}.id")), name="a" * length, metadata=metadata))
        history = metadata.tables["a" * length + "_history"]
        names = [str(item.name) for item in (history.primary_key, *history.indexes)]
        assert len(set(names)) == 4
        assert all(len(name.encode()) <= 63 for name in names)


def test_a_refused_table_can_be_audited_after_all() -> None:
    """What was refused left nothing behind: with the mistake mended, the table is audited."""
    found = table(name="a" * 60)
    with pytest.raises(ConfigurationError):
        sa_audit.track(found)
    assert [entry for entry in found.metadata.tables if entry.endswith("_history")] == []
    sa_audit.track(found, AuditOptions(history_table="past"))
    assert "past" in found.metadata.tables


def test_a_column_without_a_type(engine: sa.Engine) -> None:
    """A column whose type nobody knows stops `create_all()` before anything is made."""
    found = table(sa.Column("shape", sa.types.NullType()))
    sa_audit.track(found)
    with pytest.raises(ConfigurationError, match=r"column account\.shape has no type that is known"):
        found.metadata.create_all(engine)
    assert sa.inspect(engine).get_table_names() == []


def test_a_class_named_like_the_history() -> None:
    """An attribute called as the history class's own can be recorded, but not be an attribute of that class."""
    base = new_base()

    class Account(Audited, base):
        __tablename__ = "account"

        id: Mapped[int] = mapped_column(primary_key=True)
        audit_id: Mapped[int] = mapped_column("case_number")

    with pytest.raises(ConfigurationError, match=r"'audit_id' of Account .*select from the table account_history"):
        sa_audit.history_class(Account)
