"""What the vectors are made of: keys, a table, a row, and a log with an entry of each kind."""

from __future__ import annotations

import datetime as dt
import hashlib
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sa_audit.proof import (
    BlockEntry,
    CatalogEntry,
    Column,
    Descriptor,
    IncarnationEntry,
    KeyEntry,
    PersonKeyEntry,
    PruneEntry,
    RowEncoder,
    RowEntry,
    SchemaEntry,
    Signer,
    form,
    key_commitment,
)
from sa_audit.proof.entries import Cluster, Entry, Loss
from sa_audit.proof.types import Digest

ORIGIN = "bank.example/audit"
UTC = dt.UTC


def signer(name: str, seed: str) -> Signer:
    """Give the key whose private half is the digest of a text."""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest()))


LOG = signer(ORIGIN, "vector: log")
NEXT = signer(ORIGIN, "vector: next")
NORTH = signer("north.example/witness", "vector: north")
SOUTH = signer("south.example/witness", "vector: south")

DESCRIPTOR = Descriptor(
    table=3,
    role="history",
    schema="bank",
    name="account_history",
    columns=(
        Column(id=-7, name="audit_flush", type="int", sql_type="integer"),
        Column(id=-6, name="audit_before", type="json", sql_type="json"),
        Column(id=-5, name="audit_at", type="instant", sql_type="timestamp with time zone"),
        Column(id=-4, name="audit_op", type="text", sql_type="text"),
        Column(id=-3, name="audit_txid", type="int", sql_type="bigint"),
        Column(id=-2, name="audit_tx", type="int", sql_type="bigint"),
        Column(id=-1, name="audit_id", type="int", sql_type="bigint"),
        Column(id=1, name="id", type="int", sql_type="integer"),
        Column(id=2, name="owner", type="text", sql_type="text"),
        Column(id=3, name="balance", type="decimal", sql_type="numeric(12,2)"),
        Column(id=5, name="opened", type="date", sql_type="date"),
        Column(id=6, name="rate", type="float64", sql_type="double precision"),
        Column(id=7, name="tags", type="text[]", sql_type="text[]"),
        Column(id=8, name="photo", type="bytes", sql_type="bytea"),
        Column(id=9, name="national_id", type="encrypted", sql_type="bytea"),
    ),
    key=(1,),
)
RENAMED = Descriptor(
    table=3,
    role="history",
    schema="bank",
    name="account_history",
    columns=tuple(
        Column(id=column.id, name="holder" if column.id == 2 else column.name, type=column.type, sql_type="text")
        if column.id == 2
        else column
        for column in DESCRIPTOR.columns
    ),
    key=(1,),
)
GUARD: dict[str, Any] = {"what": "function", "schema": "bank", "table": None, "name": "sa_audit_guard_v1"}
CATALOG = (
    CatalogEntry(what="column", schema="bank", table="account_history", name="owner", definition="text"),
    CatalogEntry(what="table", schema="bank", table=None, name="account_history", definition="table"),
    CatalogEntry(
        what="trigger",
        schema=None,
        table="account_history",
        name="account_history_guard_update",
        definition="BEFORE UPDATE ON account_history\nBEGIN\n    SELECT RAISE(ABORT, 'no');\nEND",
    ),
    CatalogEntry(**GUARD, definition="security invoker, no settings\nBEGIN\nEND\n"),
)
"""Facts of a catalog, not in the order in which they stand in the log."""
SALT = hashlib.sha256(b"vector: salt").digest()[:16]


def history_values(number: int, **changed: Any) -> dict[str, Any]:
    """Give the values of one history row, by column."""
    values: dict[str, Any] = {
        "audit_flush": 1,
        "audit_before": '{"balance": "1.10"}',
        "audit_at": dt.datetime(2026, 3, 31, 23, 59, 59, 1, tzinfo=UTC),
        "audit_op": "U",
        "audit_txid": 755,
        "audit_tx": 12,
        "audit_id": number,
        "id": 42,
        "owner": "Ann",
        "balance": Decimal("12.50"),
        "opened": dt.date(2020, 2, 29),
        "rate": 0.1,
        "tags": ["a", None],
        "photo": b"",
        "national_id": None,
    }
    return values | changed


def encoded_row(descriptor: Descriptor, values: dict[str, Any], salt: bytes = SALT) -> bytes:
    """Give a row's bytes."""
    forms = [form(column.type, value) for column, value in zip(descriptor.columns, values.values(), strict=True)]
    return RowEncoder(descriptor).encode(salt, forms)


def all_entries() -> list[tuple[str, Entry]]:
    """Give an entry of each kind, and of each case of it."""
    row = encoded_row(DESCRIPTOR, history_values(7))
    digest = hashlib.sha256(row).digest()
    cluster = Cluster(system="7301234567890123456", timeline=1, position="0/16B3748", snapshot="755:758:756")
    secret = hashlib.sha256(b"vector: person").digest()
    block: dict[str, Any] = {"number": 1, "first": 5, "count": 4, "incarnation": 0, "sealed_at": 1_774_994_400_000_000}
    return [
        ("row", RowEntry(table=3, row=7, transaction=12, schema=DESCRIPTOR.digest, digest=digest)),
        ("row without transaction", RowEntry(table=1, row=-1, transaction=None, schema=bytes(32), digest=bytes(32))),
        (
            "block, PostgreSQL",
            BlockEntry(**block, horizon=("snapshot", "755:758:756"), closes=True, tables=((1, 1), (3, 2))),
        ),
        (
            "block, MariaDB",
            BlockEntry(
                **block, horizon=("epoch", 3), closes=False, tables=(), fingerprint=bytes(32), token=bytes(31) + b"\1"
            ),
        ),
        ("block, SQLite", BlockEntry(**block, horizon=("rowid", ((1, 9), (3, 8))), closes=True, tables=((3, 3),))),
        ("schema", SchemaEntry.of(DESCRIPTOR)),
        (
            "key added",
            KeyEntry(event="add", verifier=str(LOG.verifier), size=1, moment=1_774_994_400_000_000, reason="first"),
        ),
        (
            "key revoked",
            KeyEntry(event="revoke", verifier=str(LOG.verifier), size=8, moment=1_774_994_400_000_001, reason="stolen"),
        ),
        (
            "prune",
            PruneEntry(
                table=3,
                first_row=1,
                last_row=6,
                count=6,
                root=Digest(bytes(32)),
                policy="keep 10 years",
                approver="dpo",
                reason="retention",
            ),
        ),
        (
            "person's key created",
            PersonKeyEntry(event="created", key="k-1", commitment=key_commitment(secret, "k-1")),
        ),
        ("person's key destroyed", PersonKeyEntry(event="destroyed", key="k-1", commitment=None, reason="request 5")),
        (
            "incarnation",
            IncarnationEntry(
                number=1,
                old=cluster,
                new=Cluster(system="7301234567890123456", timeline=2),
                tables=(
                    Loss(table=1, last_row=11, lost=((12, 12),)),
                    Loss(table=3, last_row=None, lost=((1, 2), (4, 7))),
                ),
                reason="standby promoted",
                operator="dba:3",
            ),
        ),
    ]


def catalog_entries() -> list[tuple[str, Entry]]:
    """Give entries of a catalog."""
    long = CatalogEntry(**GUARD, definition=Digest(hashlib.sha256(b"x" * 32_769).digest()))
    return [*((f"catalog, {fact.what}", fact) for fact in CATALOG), ("catalog, a long definition", long)]
