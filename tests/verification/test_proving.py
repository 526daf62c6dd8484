"""Proofs of single rows, checked with no database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit.errors import IntegrityFinding, MalformedProof, NotAudited, NotSealed
from sa_audit.proof import ConsistencyProof, Policy, Proof, Signer
from tests.verification.models import Base, Note, amend, write
from tests.verification.sealed import ORIGIN, Sealed
from tests.verification.test_rows import HISTORY


def proof_of(sealed: Sealed, number: int, position: int = -1) -> Proof:
    """Prove a change of a note, and pass it through its text."""
    with Session(sealed.engine) as session:
        change = sa_audit.history(session, Note, number)[position]
        return Proof.parse(sa_audit.prove(session, change, metadata=Base).format())


@pytest.mark.parametrize("number", [1, 13, 36])
def test_a_change(sealed: Sealed, number: int) -> None:
    """The proof holds the row as it was recorded, and satisfies the reader's policy."""
    proof = proof_of(sealed, number, 0)
    assert proof.check(Policy.of(sealed.signer.verifier)).logs == (sealed.signer.verifier,)
    shown = proof.evidence().check()
    assert shown is not None
    descriptor, row = shown
    values = dict(zip([column.name for column in descriptor.columns], row.forms, strict=True))
    assert descriptor.name == HISTORY
    assert (values["id"], values["label"]) == (number, f"caf\u00e9 {number}")


def test_who_and_why(sealed: Sealed) -> None:
    """The entry that says who and why is proven likewise."""
    with Session(sealed.engine) as session:
        change = sa_audit.history(session, Note, 1)[-1]
        proof = sa_audit.prove(session, change.transaction, metadata=Base)
    proof.check(Policy.of(sealed.signer.verifier))
    shown = proof.evidence().check()
    assert shown is not None
    values = dict(zip([column.name for column in shown[0].columns], shown[1].forms, strict=True))
    assert (values["actor"], values["reason"]) == ("bob", "amended")


def test_a_proof_needs_the_true_key(sealed: Sealed) -> None:
    """Another key of the same name has not signed it."""
    with pytest.raises(IntegrityFinding, match="no signature that counts"):
        proof_of(sealed, 1).check(Policy.of(Signer.generate(ORIGIN).verifier))


def test_what_is_not_sealed(sealed: Sealed) -> None:
    """Has no proof, until it is; a thing that is no entry never has."""
    write(sealed.engine, 601, 602)
    with pytest.raises(NotSealed, match="is not in the log"):
        proof_of(sealed, 601)
    sealed.seal()
    proof_of(sealed, 601).check(Policy.of(sealed.signer.verifier))
    with Session(sealed.engine) as session, pytest.raises(NotAudited, match="is not an entry"):
        sa_audit.prove(session, "note 1", metadata=Base)
    sealed.attack("DELETE FROM audit_checkpoint")
    with pytest.raises(NotSealed, match="nothing of this trail is sealed"):
        proof_of(sealed, 601)


def test_an_edited_row_has_no_proof(sealed: Sealed) -> None:
    """Nor has one whose leaf was removed from under it, or whose block lies."""
    sealed.attack(f"UPDATE {HISTORY} SET label = 'x' WHERE id = 2")
    with pytest.raises(IntegrityFinding, match="is not the sealed one"):
        proof_of(sealed, 2)


def test_growth(sealed: Sealed) -> None:
    """A checkpoint that is held is the beginning of the last one; of one that was rewritten it is not."""
    held = sealed.verify().checkpoint
    assert held is not None
    amend(sealed.engine, 9)
    sealed.seal()
    policy = Policy.of(sealed.signer.verifier)
    proof = ConsistencyProof.parse(sa_audit.prove_consistency(sealed.engine, held, metadata=Base).format())
    proof.check(policy, held)
    other = held.__class__(origin=held.origin, size=held.size, root=proof.checkpoint.root).sign(sealed.signer)
    with pytest.raises(IntegrityFinding):
        proof.check(policy, other)
    with pytest.raises(MalformedProof, match="can't be a beginning"):
        sa_audit.prove_consistency(sealed.engine, proof.checkpoint, held, metadata=Base)


def test_a_row_that_was_sealed_under_an_older_schema(fresh: Sealed) -> None:
    """It is shown under the schema of its day."""
    with fresh.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {HISTORY} ADD COLUMN extra INTEGER"))
    amend(fresh.engine, 11)
    fresh.seal()
    for position in (0, -1):
        proof_of(fresh, 11, position).check(Policy.of(fresh.signer.verifier))


def test_a_row_that_was_sealed_before_its_table_was_renamed(fresh: Sealed) -> None:
    """It is found under the number that the table kept, and shown under the name of its day."""
    metadata = sa.MetaData()
    mark = sa.Table(
        "mark",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("label", sa.String(80)),
    )
    sa_audit.track(mark)
    with fresh.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE tag_history RENAME TO mark_history"))
    with fresh.engine.begin() as connection:
        mark.create(connection)
        connection.execute(sa.insert(mark).values(id=900, label="new"))
    fresh.seal(metadata=metadata)
    for key, name in ((11, "tag_history"), (900, "mark_history")):
        with Session(fresh.engine) as session:
            change = sa_audit.history(session, mark, key)[-1]
            proof = sa_audit.prove(session, change, metadata=metadata)
        proof.check(Policy.of(fresh.signer.verifier))
        shown = proof.evidence().check()
        assert shown is not None
        assert shown[0].name == name
