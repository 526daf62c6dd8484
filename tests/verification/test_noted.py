"""Attacks on what stands beside the checkpoints: their order, their number, and the tokens of the anchors."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa

from sa_audit.anchors import Anchored, FileAnchor
from sa_audit.errors import AnchorUnavailable, IntegrityFinding
from sa_audit.proof import Checkpoint, Signer
from sa_audit.proof.types import Digest
from sa_audit.verification.noted import Kept, NotedTokens, Places
from sa_audit.verification.report import Findings
from tests.verification.sealed import ORIGIN, Sealed

NOTES = "audit_checkpoint"


def sizes(sealed: Sealed) -> list[int]:
    """Give the sizes of the checkpoints, ascending."""
    with sealed.engine.connect() as connection:
        return list(connection.scalars(sa.text(f"SELECT DISTINCT size FROM {NOTES} ORDER BY size")))


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("which", ["anchor IS NULL", "anchor IS NOT NULL"])
def test_a_checkpoint_that_is_there_twice(sealed: Sealed, which: str, anchored: bool) -> None:
    """The last one again, as it was written down before it was anchored or behind that."""
    last = sizes(sealed)[-1]
    sealed.attack(
        f"INSERT INTO {NOTES} (size, note, anchor, token, recorded_at) "
        f"SELECT size, note, anchor, token, recorded_at FROM {NOTES} WHERE size = {last} AND {which}"
    )
    assert sealed.found(anchored=anchored) == {("checkpoint-misplaced", NOTES, last)}


@pytest.mark.parametrize("anchored", [True, False])
def test_an_older_checkpoint_that_is_there_twice(sealed: Sealed, anchored: bool) -> None:
    """Behind a greater one; what anchors it is changed on the way."""
    first = sizes(sealed)[0]
    sealed.attack(
        f"INSERT INTO {NOTES} (size, note, recorded_at) "
        f"SELECT size, note, recorded_at FROM {NOTES} WHERE size = {first} AND anchor IS NULL"
    )
    assert sealed.found(anchored=anchored) == {("checkpoint-misplaced", NOTES, first)}


def test_checkpoints_in_another_order(sealed: Sealed) -> None:
    """Two that change their ids."""
    one, *_between, last = sizes(sealed)
    ids = [sealed.scalar(f"SELECT id FROM {NOTES} WHERE size = {size} AND anchor IS NULL") for size in (one, last)]
    table = next(each for each in sealed.tables() if each.name == NOTES)
    with sealed.unguarded() as connection:
        kept = connection.execute(sa.select(table).where(table.c.id.in_(ids)).order_by(table.c.id)).mappings().all()
        connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
        for number, row in zip(reversed(ids), kept, strict=True):
            connection.execute(sa.insert(table), {**row, "id": number})
    assert {kind for kind, _table, _row in sealed.found(anchored=False)} == {"checkpoint-misplaced"}


def test_the_token_of_the_last_anchor(sealed: Sealed) -> None:
    """No header names it yet: silent without the anchor, found with it."""
    last = sizes(sealed)[-1]
    table = next(each for each in sealed.tables() if each.name == NOTES)
    anchored = sa.and_(table.c.size == last, table.c.anchor.is_not(None))
    with sealed.unguarded() as connection:
        token = bytes(connection.execute(sa.select(table.c.token).where(anchored)).scalar_one())
        changed = token[:-1] + bytes([token[-1] ^ 1])
        connection.execute(sa.update(table).where(anchored).values(token=changed))
    assert sealed.found(anchored=False) == set()
    assert sealed.found() == {("token-unknown", NOTES, last)}


def test_a_token_without_anchor_and_an_anchor_without_token(sealed: Sealed) -> None:
    """The sealer writes both or neither."""
    one, two, *_later = sizes(sealed)
    sealed.attack(
        f"UPDATE {NOTES} SET anchor = NULL WHERE size = {one} AND anchor IS NOT NULL",
        f"UPDATE {NOTES} SET token = NULL WHERE size = {two} AND anchor IS NOT NULL",
    )
    found = sealed.found(anchored=False) - {("token-unknown", "audit_block", 1), ("token-unknown", "audit_block", 2)}
    expected = {("checkpoint-malformed", NOTES, one), ("checkpoint-malformed", NOTES, two)}
    assert expected <= found
    assert {kind for kind, _table, _row in found - expected} <= {"token-unknown", "checkpoint-misplaced"}


@pytest.mark.parametrize("left", [0, 1, -1])
def test_an_anchor_that_was_cut(sealed: Sealed, left: int) -> None:
    """Whole records that went from its end are missed, since the database says that it had them."""
    anchor = sealed.directory / "anchor"
    whole = anchor.read_bytes()
    tokens = [each.token for each in FileAnchor(anchor).read()]
    anchor.write_bytes(b"".join(tokens[:left]))
    gone = sizes(sealed)[left:]
    assert sealed.found() == {("token-unknown", NOTES, size) for size in gone}
    anchor.write_bytes(whole)


# -- by themselves -----------------------------------------------------------------------


class Proving:
    """An anchor whose tokens prove themselves: those that begin with ``good``."""

    uri = "witness+https://witness.example"

    def __init__(self, *, there: bool = True) -> None:
        self._there = there

    def verify(self, anchored: Anchored) -> dt.datetime:
        """Judge a token."""
        if not self._there:
            raise AnchorUnavailable("it is away")
        if not anchored.token.startswith(b"good"):
            raise IntegrityFinding("another's")
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def checkpoint(size: int = 3) -> Checkpoint:
    """Give a signed checkpoint."""
    return Checkpoint(origin=ORIGIN, size=size, root=Digest(bytes(32))).sign(Signer.generate(ORIGIN))


def judged(token: bytes) -> list[str]:
    """Give the kinds of findings that come of a token, where the anchor keeps another one for the checkpoint."""
    findings, given = Findings(), checkpoint()
    kept = Kept(given, Proving.uri, Digest(bytes(32)))
    anchor: object = Proving()
    NotedTokens([anchor], [kept], findings).take(given, Proving.uri, token)  # type: ignore[list-item]  # all it needs
    return [finding.kind for finding in findings.all()]


def test_a_token_that_proves_itself() -> None:
    """A witness may have cosigned twice, and the reader keeps the other one; what is none is found."""
    assert judged(b"good, of another moment") == []
    assert judged(b"bad") == ["token-unknown"]


def test_an_anchor_that_is_away() -> None:
    """A token that can't be judged is not passed over."""
    anchor: object = Proving(there=False)
    tokens = NotedTokens([anchor], [], Findings())  # type: ignore[list-item]  # all it needs
    with pytest.raises(AnchorUnavailable):
        tokens.take(checkpoint(), Proving.uri, b"good")


def test_what_the_sealer_writes_is_in_place() -> None:
    """Each size once for itself, once for each anchor, and again with other signatures."""
    findings = Findings()
    places = Places(findings)
    for size, note, anchor in [(3, "a", None), (3, "a", "one"), (3, "a", "two"), (3, "b", "two"), (5, "c", None)]:
        places.take(checkpoint(size), note, anchor)
    assert findings.all() == ()
    places.take(checkpoint(5), "c", None)
    places.take(checkpoint(3), "a", None)
    assert [(finding.kind, finding.row) for finding in findings.all()] == [
        ("checkpoint-misplaced", 5),
        ("checkpoint-misplaced", 3),
    ]
