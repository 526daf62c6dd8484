"""Which id a column has: one that it keeps for ever, whatever becomes of its name."""

from __future__ import annotations

from sa_audit.catalog.describe import column_ids


def test_a_new_column_amid_a_fixed_table() -> None:
    """It gets a number of its own, and takes none from those that are there."""
    former = {"id": 1, "actor": 2, "reason": 3}
    placed = {"id": 1, "tenant": 2, "actor": 3, "reason": 4}
    assert column_ids(list(placed), {}, placed, former) == {"id": 1, "tenant": 5, "actor": 2, "reason": 3}


def test_a_renamed_column() -> None:
    """The account of columns says that it is the same."""
    accounted = {"id": 1, "mail": 2}
    assert column_ids(["id", "mail"], {}, accounted, {"id": 1, "email": 2}) == {"id": 1, "mail": 2}


def test_a_column_that_nobody_accounts_for() -> None:
    """A number that no column has had, as far as the log and the account know."""
    assert column_ids(["id", "x"], {}, {"id": 1, "gone": 7}, {"id": 1}) == {"id": 1, "x": 8}


def test_the_trail_s_own_columns() -> None:
    """They have the numbers of the format."""
    assert column_ids(["audit_id", "id"], {"audit_id": -1}, {"id": 1}, {}) == {"audit_id": -1, "id": 1}


def test_a_retyped_column_and_back() -> None:
    """The former column takes its number along under its new name, and back again."""
    accounted, former = {"id": 1, "n": 2}, {"id": 1, "n": 2}
    retyped = column_ids(["id", "n_until_0002", "n"], {}, accounted, former)
    assert retyped == {"id": 1, "n_until_0002": 2, "n": 3}
    assert column_ids(["id", "n", "n_since_0002"], {}, accounted, retyped) == {"id": 1, "n": 2, "n_since_0002": 3}


def test_a_column_named_like_one_put_aside() -> None:
    """A column of the user's own that has such a name keeps its number, too."""
    former = {"id": 1, "valid_until_x": 2, "valid": 3}
    assert column_ids(["id", "valid_until_x", "valid"], {}, {}, former) == former
