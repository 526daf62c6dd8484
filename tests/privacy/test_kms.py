"""Keys from AWS KMS, which moto stands in for: wrapped, digested, rotated and refused by it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import sa_audit
from sa_audit import Digest, Encrypt, UnusableKey
from sa_audit.capture.erasure import rewrap
from sa_audit.model import trail_of

MISSING = [name for name in ("boto3", "moto") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs the extra kms and moto: {', '.join(MISSING)}"),
    pytest.mark.only_on("sqlite"),
]


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of a KMS without keys."""
    import boto3
    from moto import mock_aws

    with mock_aws():
        yield boto3.client("kms", region_name="eu-west-1")


def key(client: Any, **options: Any) -> str:
    """Make a key in KMS, and give its id."""
    made: str = client.create_key(**options)["KeyMetadata"]["KeyId"]
    return made


def mac(client: Any) -> str:
    """Make a key for digests."""
    return key(client, KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")


def test_wrapping_is_bound_to_its_context(client: Any) -> None:
    """What KMS wrapped comes back in its context and by its key, and not otherwise; nothing is shown."""
    from sa_audit.privacy.kms import AWSKeys

    keys, other = AWSKeys(key(client), client=client), AWSKeys(key(client), client=client)
    wrapped = keys.wrap(b"s" * 32, {"key": "k"})
    assert keys.unwrap(wrapped, keys.current, {"key": "k"}) == b"s" * 32
    for name, context in ((keys.current, {"key": "j"}), (other.current, {"key": "k"})):
        with pytest.raises(UnusableKey, match="KMS refuses decrypt"):
            keys.unwrap(wrapped, name, context)
    with pytest.raises(UnusableKey, match="KMS refuses describe_key with key 'nothing'"):
        AWSKeys("nothing", client=client)
    with pytest.raises(UnusableKey, match="has no HMAC key"):
        keys.digest_keys  # noqa: B018 (it raises)
    assert repr(keys) == f"<AWSKeys {keys.current}>"


def test_digests_and_encrypted_values(client: Any, engine: sa.Engine) -> None:
    """Recorded, read by another process, wrapped anew by a new key, erased."""
    from sa_audit.privacy.kms import AWSKeys

    metadata = sa.MetaData()
    person = sa.Table(
        "person",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(20), info={"sa_audit": Encrypt("id")}),
        sa.Column("card", sa.String(20), info={"sa_audit": Digest()}),
    )
    sa_audit.track(person)
    digests = mac(client)
    old = AWSKeys(key(client), mac_keys=[digests], client=client)
    sa_audit.configure(metadata, keys=old)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(person).values(id=1, name="Ann", card="4111"))
    trail = trail_of(metadata)
    assert trail is not None
    new = AWSKeys(key(client), mac_keys=[mac(client), digests], client=client)
    object.__setattr__(trail.configuration, "keys", new)  # as another process would be configured
    with Session(engine) as session:
        assert rewrap(session, base=metadata) == 1
        session.commit()
        wrapped_by = sa.select(metadata.tables["audit_person_key"].c.wrapped_by)
        assert session.scalars(wrapped_by).all() == [new.current] != [old.current]
        trail.secrets = None
        (made,) = sa_audit.history(session, person, 1)
        assert made.state["name"] == "Ann"
        assert made.state["card"] in sa_audit.privacy.digest(person.c.card, "4111")
        assert list(sa_audit.reconcile(session, person)) == []
        sa_audit.erase(session, 1, "asked for", base=metadata)
        session.commit()
        assert sa_audit.history(session, person, 1)[0].state["name"] is sa_audit.Erased
