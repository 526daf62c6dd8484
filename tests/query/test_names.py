"""Which name a column had when, told from the account that the migrations write."""

from __future__ import annotations

import datetime as dt

import pytest

from sa_audit.query.names import ColumnNames, column_names


def at(minute: int) -> dt.datetime:
    """Give a moment."""
    return dt.datetime(2026, 3, 31, 12, minute, tzinfo=dt.UTC)


def test_a_renamed_column_is_known_by_all_its_names() -> None:
    """Whenever the row was written: no other column ever had one of them."""
    names = column_names(["id", "holder"], [(1, "id", at(0)), (2, "owner", at(0)), (2, "holder", at(5))])
    for minute in (1, 9):
        assert [names.present(name, at(minute)) for name in ("id", "owner", "holder")] == ["id", "holder", "holder"]
    assert [span.name for span in names.of("holder")] == ["owner", "holder"]


def test_a_name_that_two_columns_had_is_told_by_the_moment() -> None:
    """The old one's before it gave the name up, the new one's after."""
    rows = [(2, "owner", at(0)), (2, "holder", at(5)), (3, "owner", at(7))]
    names = column_names(["owner", "holder"], rows)
    assert names.present("owner", at(1)) == "holder"
    assert names.present("owner", at(8)) == "owner"
    assert names.present("holder", at(1)) == "holder"


def test_names_that_were_swapped_are_told_by_the_moment() -> None:
    """By three renames, as a database needs them."""
    rows = [(1, "a", at(0)), (2, "b", at(0)), (1, "t", at(5)), (2, "a", at(5)), (1, "b", at(5))]
    names = column_names(["a", "b"], rows)
    assert [names.present(name, at(1)) for name in "ab"] == ["b", "a"]
    assert [names.present(name, at(6)) for name in "ab"] == ["a", "b"]


def test_a_rename_that_was_taken_back_shows_the_model_s_name() -> None:
    """A downgrade leaves no account: the model says what the column is called."""
    names = column_names(["owner"], [(2, "owner", at(0)), (2, "holder", at(5))])
    assert [names.present(name, at(9)) for name in ("owner", "holder")] == ["owner", "owner"]


def test_a_column_that_went_keeps_its_last_name() -> None:
    """It is not taken for the one that has its old name now."""
    rows = [(2, "owner", at(0)), (2, "holder", at(5)), (2, "holder", at(6)), (3, "owner", at(7))]
    names = column_names(["owner"], rows)
    assert names.present("owner", at(1)) == "holder"
    assert names.present("owner", at(8)) == "owner"


@pytest.mark.parametrize("names", [ColumnNames(), column_names([], [])])
def test_what_has_no_account_keeps_its_name(names: ColumnNames) -> None:
    """Such as a column of a table that nobody migrated."""
    assert names.present("owner", at(1)) == "owner"
    assert [span.name for span in names.of("owner")] == ["owner"]
