"""Reading many leaves at once says what reading each of them says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sa_audit.proof.blocks import pack_entries, unpack_entries
from sa_audit.proof.entries import row_entry
from sa_audit.proof.types import RowDigest, SchemaDigest
from sa_audit.verification.ids import IdSet
from sa_audit.verification.leaves import parts_of, row_of

IDS = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32]),
    st.integers(65530, 65540),
)
TABLES = st.sampled_from([1, 2, 23, 24, 300])
SCHEMAS = st.sampled_from([SchemaDigest(bytes(32)), SchemaDigest(b"\x01" * 32)])
ROWS = st.tuples(TABLES, st.lists(IDS, min_size=1, max_size=60), st.none() | IDS, SCHEMAS)


@given(st.lists(ROWS, max_size=4), st.integers(0, 3))
def test_parts_of_leaves(runs: list[tuple[int, list[int], int | None, SchemaDigest]], start: int) -> None:
    """Every leaf comes once, in its place, with the table, row and schema that it has."""
    digest = RowDigest(b"\x02" * 32)
    entries = [row_entry(table, row, owner, schema, digest) for table, rows, owner, schema in runs for row in rows]
    got: list[tuple[int, bytes]] = []
    for first, part, alike in parts_of(entries, start):
        got += enumerate(part, first)
        if alike is not None:
            assert [(alike.table, row, alike.schema) for row in alike.rows] == [row_of(entry) for entry in part]
    assert got == list(enumerate(entries))[start:]


def test_leaves_of_one_table_are_read_at_once() -> None:
    """A whole block of them is one part, whatever its ids and its transactions."""
    schema, digest = SchemaDigest(bytes(32)), RowDigest(bytes(32))
    for first in (300, 70_000, 1 << 33):
        entries = [row_entry(3, first + step, 5 + step % 7, schema, digest) for step in range(1_000)]
        [(_start, _part, alike)] = parts_of(entries)
        assert alike is not None
        assert list(alike.rows) == list(range(first, first + 1_000))


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 70)), max_size=8))
def test_entries_of_any_lengths(runs: list[tuple[int, int]]) -> None:
    """A bundle gives back its entries, however many of one length follow each other."""
    entries = [bytes([count]) * length for length, count in runs for _each in range(count)]
    assert unpack_entries(pack_entries(entries)) == entries


@given(st.lists(st.lists(st.integers(-70_000, 140_000), max_size=50), max_size=5))
def test_many_ids_at_once(batches: list[list[int]]) -> None:
    """They are those that one by one would be, and the same ones are new."""
    single, many = IdSet(), IdSet()
    for batch in batches:
        again = [position for position, number in enumerate(batch) if not single.add(number)]
        assert many.add_all(batch) == again
    assert many.counts() == single.counts()
