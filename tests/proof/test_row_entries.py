"""The fast way to encode a row's entry gives the same bytes as the plain one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sa_audit.proof.entries import RowEntry
from sa_audit.proof.row_entries import row_entries
from sa_audit.proof.types import RowDigest, SchemaDigest

IDS = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32])
)
DIGESTS = st.binary(min_size=32, max_size=32)


@given(st.integers(1, (1 << 31) - 1), IDS, st.none() | IDS, DIGESTS, DIGESTS)
def test_it_is_the_same(table: int, row: int, transaction: int | None, schema: bytes, digest: bytes) -> None:
    """Whatever the numbers, at the bounds of each width."""
    plain = RowEntry(
        table=table, row=row, transaction=transaction, schema=SchemaDigest(schema), digest=RowDigest(digest)
    )
    assert row_entries(table, SchemaDigest(schema))(row, transaction, digest) == plain.encode()
