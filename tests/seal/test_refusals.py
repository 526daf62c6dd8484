"""Where state, log, anchors and database don't agree nothing is sealed, and the message says what to do."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sa_audit
from sa_audit.anchors import FileAnchor
from sa_audit.proof import Checkpoint, KeyEntry, KeyHistory, Policy, Signer
from sa_audit.seal.sealer import Sealer
from sa_audit.seal.state import StateFile
from sa_audit.testing import unguarded

from .bank import ORIGIN, Base, Log, add, present, trail

Seal = Callable[..., Checkpoint | None]


def edit(state: Path, **values: Any) -> None:
    """Change values in a state file."""
    content = json.loads(state.read_text())
    content["state"].update(values)
    state.write_text(json.dumps(content))


@pytest.fixture
def sealed(bank: sa.Engine, seal: Seal) -> sa.Engine:
    """A bank with a row that is sealed."""
    add(bank, 1)
    seal()
    add(bank, 2)
    return bank


def refused(seal: Seal, match: str, **options: Any) -> None:
    """Expect a refusal that leaves the log as it is."""
    with pytest.raises(sa_audit.SealRefused, match=match):
        seal(**options)


def test_a_second_sealer_with_the_same_state(sealed: sa.Engine, seal: Seal, state: Path) -> None:
    """Two sealers on one host are kept apart by the state file."""
    with StateFile(state).locked(), pytest.raises(sa_audit.SealerBusy, match="another sealer"):
        seal()
    seal()


@pytest.mark.needs("concurrent-writers")
def test_a_second_sealer_elsewhere(sealed: sa.Engine, seal: Seal, signer: Signer, tmp_path: Path) -> None:
    """While one seals another can't, whatever state file it has; afterwards its state is a stranger's."""

    def meanwhile(step: str) -> None:
        if step == "pending":
            with pytest.raises(sa_audit.SealerBusy):
                Sealer(sealed, signer, state=tmp_path / "other", metadata=Base).seal()

    seal(on_step=meanwhile)
    with pytest.raises(sa_audit.SealRefused, match="state file is not there"):
        Sealer(sealed, signer, state=tmp_path / "other", metadata=Base).seal()


def test_a_lost_state_file(sealed: sa.Engine, seal: Seal, state: Path) -> None:
    """A log without a state is not built upon."""
    state.unlink()
    refused(seal, "state file is not there")


def test_an_older_state_file(sealed: sa.Engine, seal: Seal, state: Path) -> None:
    """A copy that has come back is found by the log, also without an anchor."""
    copy = state.with_name("copy")
    shutil.copy(state, copy)
    seal()
    shutil.copy(copy, state)
    refused(seal, "older copy")
    refused(seal, "older copy", anchors=())


def test_a_damaged_state_file(sealed: sa.Engine, seal: Seal, state: Path) -> None:
    """A file that is no state is refused, as is one whose root was changed."""
    content = state.read_text()
    edit(state, root="00" * 32)
    refused(seal, "does not give its root")
    state.write_text(content[: len(content) // 2])
    refused(seal, "is not a sealer's state")


def test_a_log_that_lost_its_end(sealed: sa.Engine, seal: Seal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block, with its checkpoints, removed behind the guards' back."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    number = len(Log(sealed).blocks) - 1
    with unguarded(sealed), sealed.begin() as connection:
        connection.execute(sa.delete(trail().block).where(trail().block.c.number == number))
        connection.execute(sa.delete(trail().sealed).where(trail().sealed.c.block == number))
    refused(seal, "older copy of the database")


def test_a_last_block_that_was_changed(sealed: sa.Engine, seal: Seal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of an entry."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    block = Log(sealed).blocks[-1]
    data = block.data[:-1] + bytes((block.data[-1] ^ 1,))
    with unguarded(sealed), sealed.begin() as connection:
        table = trail().block
        connection.execute(sa.update(table).where(table.c.number == block.number).values(entries=data))
    refused(seal, "not the one that the sealer wrote")


def test_log_and_state_gone_but_not_the_anchor(
    sealed: sa.Engine, seal: Seal, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removes the whole log, and the state with it, is still known to the anchor."""
    monkeypatch.setenv("SA_AUDIT_TESTING", "1")
    with unguarded(sealed), sealed.begin() as connection:
        for table in (trail().block, trail().sealed, trail().checkpoint):
            connection.execute(sa.delete(table))
    state.unlink()
    refused(seal, "neither a state file nor a log")


def test_an_anchor_that_lost_its_checkpoints(sealed: sa.Engine, seal: Seal, anchor: FileAnchor) -> None:
    """An anchor that has forgotten is no anchor."""
    anchor.path.write_bytes(b"")
    refused(seal, "keeps no checkpoint")


def test_an_anchor_of_a_later_log(sealed: sa.Engine, seal: Seal, anchor: FileAnchor, signer: Signer) -> None:
    """An anchor that knows more than the state."""
    anchor.put(Checkpoint(origin=ORIGIN, size=1000, root=b"\1" * 32).sign(signer))  # type: ignore[arg-type]  # a digest
    refused(seal, "of size 1000")


@pytest.mark.only_on("postgresql", "mariadb")
def test_another_database(sealed: sa.Engine, seal: Seal, state: Path) -> None:
    """A log that was restored into another server."""
    edit(state, system="another")
    refused(seal, "expected the system identifier another")


@pytest.mark.only_on("postgresql")
def test_a_promoted_standby(sealed: sa.Engine, seal: Seal, state: Path) -> None:
    """The same identifier on another timeline."""
    edit(state, timeline=99)
    refused(seal, "was sealed on 99")


def test_a_history_that_is_gone(sealed: sa.Engine, seal: Seal) -> None:
    """A table with sealed rows that was renamed away."""
    with sealed.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE account_sealed_history RENAME TO elsewhere")
    refused(seal, "account_sealed_history has sealed rows and is not there")


# -- keys ----------------------------------------------------------------------------------


def test_another_key(sealed: sa.Engine, seal: Seal) -> None:
    """A key of the right name that no known key has vouched for."""
    refused(seal, "none of these keys is given", signers=Signer.generate(ORIGIN))


def test_another_origin(sealed: sa.Engine, seal: Seal) -> None:
    """The key of another log."""
    with pytest.raises(sa_audit.ConfigurationError, match="the key is that of 'other'"):
        seal(signers=Signer.generate("other"))


def test_keys_change_by_overlap(sealed: sa.Engine, seal: Seal, signer: Signer) -> None:
    """The new key comes under the old one's signature, both sign, and the old one goes under the new one's."""
    new = Signer.generate(ORIGIN)
    seal(signers=[signer, new])
    add(sealed, 3)
    seal(signers=[signer, new])
    add(sealed, 4)
    seal(signers=new)
    log = Log(sealed, signer.verifier, new.verifier)
    assert log.rows() == present(sealed)
    events = [(event.event, event.verifier) for event in log.of(KeyEntry)]
    assert events == [("add", str(signer.verifier)), ("add", str(new.verifier)), ("retire", str(signer.verifier))]
    history = KeyHistory.of(log.of(KeyEntry))
    for checkpoint in log.checkpoints:
        lines = {line.key_id for line in checkpoint.signatures}
        counted = {key.key_id for key in (signer.verifier, new.verifier) if history.counts(key, checkpoint.size)}
        assert lines == counted
    refused(seal, "none of these keys", signers=Signer.generate(ORIGIN))
    refused(seal, "retired or revoked", signers=signer)


# -- keys that were stolen ----------------------------------------------------------------

THEFT = dt.datetime(2026, 3, 31, 20, tzinfo=dt.UTC)


def test_a_key_that_was_stolen(sealed: sa.Engine, seal: Seal, signer: Signer, state: Path, anchor: FileAnchor) -> None:
    """What it signs beyond the last good size does not count; what came before, another key vouches for."""
    new = Signer.generate(ORIGIN)
    both = Policy.of(signer.verifier, new.verifier)
    how: dict[str, Any] = {"state": state, "stolen_at": THEFT, "operator": "olga", "reason": "lost", "metadata": Base}
    size = len(Log(sealed).entries)
    with pytest.raises(sa_audit.SealRefused, match="only key that signs"):
        sa_audit.revoke(sealed, signer.verifier, size=size, **how)
    seal(signers=[signer, new])
    size = len(Log(sealed).entries)
    with pytest.raises(sa_audit.ConfigurationError, match="leaves; give the last size"):
        sa_audit.revoke(sealed, signer.verifier, size=size + 1, **how)
    with pytest.raises(sa_audit.ConfigurationError, match="can't be revoked"):
        sa_audit.revoke(sealed, Signer.generate(ORIGIN).verifier, size=size, **how)
    sa_audit.revoke(sealed, signer.verifier, size=size, **how)
    with pytest.raises(sa_audit.ConfigurationError, match="can't be revoked"):
        sa_audit.revoke(sealed, signer.verifier, size=size, **how)
    refused(seal, "retired or revoked", signers=[signer, new])
    add(sealed, 4)
    seal(signers=new)
    event = Log(sealed, new.verifier, signer.verifier).of(KeyEntry)[-1]
    assert (event.event, event.verifier, event.size) == ("revoke", str(signer.verifier), size)
    assert (event.moment, event.reason) == (int(THEFT.timestamp()) * 1_000_000, "lost (said by olga)")
    assert sa_audit.verify(sealed, both, metadata=Base).findings == ()
    forged = replace(Log(sealed).checkpoints[-1], signatures=()).sign(signer)
    note = trail().checkpoint
    with sealed.begin() as connection:
        connection.execute(sa.insert(note).values(size=forged.size, note=forged.format()))
    (finding,) = sa_audit.verify(sealed, both, metadata=Base).findings
    assert (finding.kind, finding.row) == ("checkpoint-unsigned", forged.size)
    alone = {each.kind for each in sa_audit.verify(sealed, signer.verifier, metadata=Base).findings}
    assert alone == {"checkpoint-unsigned", "log-missing"}  # who knows the stolen key alone has nothing that counts
