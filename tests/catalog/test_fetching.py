"""Rows that are fetched while the caller works on those before them."""

from __future__ import annotations

import contextlib

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sa_audit.catalog import catalog_for

pytestmark = pytest.mark.only_on("postgresql")

NUMBERS = "SELECT n FROM generate_series(1, :last) AS n ORDER BY n"


def test_the_connection_is_free_meanwhile(engine: sa.Engine) -> None:
    """All rows come, in order and each once, whatever else is asked and written in between."""
    database = catalog_for(engine.dialect)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TEMPORARY TABLE kept (n integer)"))
        read: list[int] = []
        for batch in database.batches(connection, NUMBERS, {"last": 23_456}):
            connection.execute(sa.text("INSERT INTO kept VALUES (:n)"), [{"n": row[0]} for row in batch])
            read += [row[0] for row in batch]
            assert connection.scalar(sa.text("SELECT count(*) FROM kept")) == len(read)
        assert read == list(range(1, 23_457))


def test_nothing_is_left_under_way(engine: sa.Engine) -> None:
    """Who wants no more rows can go on in the same transaction at once."""
    database = catalog_for(engine.dialect)
    with engine.begin() as connection:
        for _turn in range(3):
            with contextlib.closing(database.batches(connection, NUMBERS, {"last": 50_000}, size=10)) as batches:
                assert [row[0] for row in next(batches)] == list(range(1, 11))
            assert connection.scalar(sa.text("SELECT count(*) FROM pg_cursors")) == 0


def test_no_rows_at_all(engine: sa.Engine) -> None:
    """Nothing is yielded."""
    with engine.begin() as connection:
        assert list(catalog_for(engine.dialect).batches(connection, NUMBERS, {"last": 0})) == []


def test_a_row_that_can_not_be_read(engine: sa.Engine) -> None:
    """Far behind: it is raised where the rows are taken, and the savepoint around it can be given up."""
    database = catalog_for(engine.dialect)
    failing = "SELECT 1 / (n - 12000) FROM generate_series(1, 20000) AS n"
    with engine.begin() as connection:
        with pytest.raises(DBAPIError, match="division by zero"), connection.begin_nested():
            list(database.batches(connection, failing, {}))
        assert connection.scalar(sa.text("SELECT 1")) == 1
