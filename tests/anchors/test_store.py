"""The object-store anchor, against moto's server, which speaks S3's protocol over HTTP, locks and versions included."""

from __future__ import annotations

import datetime as dt
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from sa_audit import anchors
from sa_audit.anchors import Anchored
from sa_audit.errors import AnchorUnavailable, ConfigurationError, IntegrityFinding, MalformedProof

from .trees import Tree

if TYPE_CHECKING:
    from pathlib import Path

MISSING = [name for name in ("s3fs", "moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs the extra s3 and moto's server: {', '.join(MISSING)}")

BUCKET = "evidence"
TREE = Tree()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of the protocol."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Somebody who may do anything in the store, as its administrator could; the bucket has object lock."""
    import boto3
    import requests

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    requests.post(f"{server}/moto-api/reset", timeout=10)
    client = boto3.client("s3", endpoint_url=server)
    client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    return client


@pytest.fixture
def anchor(server: str, client: Any) -> anchors.Anchor:
    """An anchor that keeps three checkpoints."""
    anchor = opened(server)
    for size in (1, 5, 9):
        anchor.put(TREE.checkpoint(size))
    return anchor


def opened(server: str, place: str = f"{BUCKET}/audit") -> anchors.Anchor:
    """Give the anchor, by its URI."""
    return anchors.open(f"s3://{place}?endpoint={server}&days=30&timeout=5")


def last_key(client: Any) -> str:
    """Give the name of the last object."""
    key: str = client.list_objects_v2(Bucket=BUCKET)["Contents"][-1]["Key"]
    return key


def test_what_is_put_is_read_by_another(anchor: anchors.Anchor, server: str) -> None:
    """Oldest first, with its token and the store's moment."""
    kept = list(opened(server).read())
    assert [each.checkpoint for each in kept] == [TREE.checkpoint(size) for size in (1, 5, 9)]
    assert anchor.latest() == kept[-1]
    assert kept[0].at is not None
    assert abs(dt.datetime.now(dt.UTC) - kept[0].at) < dt.timedelta(minutes=1)
    assert anchor.verify(kept[0]) == kept[0].at
    assert list(opened(server, f"{BUCKET}/elsewhere").read()) == []
    assert opened(server, f"{BUCKET}/elsewhere").latest() is None
    assert list(anchors.open(anchor.uri).read()) == kept


def test_each_is_locked(anchor: anchors.Anchor, client: Any) -> None:
    """For as long as was said, in the mode that nobody can lift; the version can't be removed."""
    head = client.head_object(Bucket=BUCKET, Key=last_key(client))
    assert head["ObjectLockMode"] == "COMPLIANCE"
    left = head["ObjectLockRetainUntilDate"] - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29, hours=23) < left <= dt.timedelta(days=30)
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=BUCKET, Key=last_key(client), VersionId=head["VersionId"])


def test_putting_again_gives_the_same_token(anchor: anchors.Anchor, server: str, client: Any) -> None:
    """And lays no further version."""
    latest = anchor.latest()
    assert opened(server).put(TREE.checkpoint(9)) == latest
    assert len(client.list_object_versions(Bucket=BUCKET)["Versions"]) == 3


def test_what_does_not_continue_is_not_kept(anchor: anchors.Anchor) -> None:
    """A smaller size, another root of the same size, another log."""
    other = Tree(signer=Tree().signer.generate("other.example/audit"))
    for wrong in (TREE.checkpoint(8), Tree(b"rewritten").checkpoint(9), other.checkpoint(10)):
        with pytest.raises(IntegrityFinding, match="the anchor keeps"):
            anchor.put(wrong)
    assert len(list(anchor.read())) == 3


def test_what_is_laid_on_top_does_not_count(anchor: anchors.Anchor, client: Any) -> None:
    """A later version of the name, and a mark that it is deleted: the lock allows both, the first one counts."""
    kept = list(anchor.read())
    key = last_key(client)
    client.put_object(Bucket=BUCKET, Key=key, Body=Tree(b"rewritten").checkpoint(9).format().encode())
    assert list(anchor.read()) == kept
    client.delete_object(Bucket=BUCKET, Key=key)
    assert list(anchor.read()) == kept
    assert anchor.latest() == kept[-1]
    assert anchor.verify(kept[-1]) == kept[-1].at


def test_a_version_without_a_lock_does_not_count(anchor: anchors.Anchor, client: Any) -> None:
    """It could have been put in place of another."""
    checkpoint = TREE.checkpoint(12)
    key = f"audit/{12:020d}-{checkpoint.root.hex()[:16]}.checkpoint"
    client.put_object(Bucket=BUCKET, Key=key, Body=checkpoint.format().encode())
    with pytest.raises(IntegrityFinding, match="is not locked in compliance mode"):
        list(anchor.read())
    with pytest.raises(IntegrityFinding, match="is not locked in compliance mode"):
        anchor.put(TREE.checkpoint(13))


def test_a_forked_history_is_found(anchor: anchors.Anchor, server: str, client: Any) -> None:
    """Somebody with the log's key writes another root of a size that is there, locked as ours are."""
    fork = Tree(b"rewritten").checkpoint(9)
    client.put_object(
        Bucket=BUCKET,
        Key=f"audit/{9:020d}-{fork.root.hex()[:16]}.checkpoint",
        Body=fork.format().encode(),
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=dt.datetime.now(dt.UTC) + dt.timedelta(days=30),
    )
    with pytest.raises(IntegrityFinding, match="does not continue"):
        list(anchor.read())


@pytest.mark.parametrize(
    ("name", "body"), [("notes.txt", b"x"), (f"{5:020d}-{'0' * 16}.checkpoint", TREE.checkpoint(5).format().encode())]
)
def test_strange_objects_are_refused(anchor: anchors.Anchor, client: Any, name: str, body: bytes) -> None:
    """What stands there and is no checkpoint, or is under another's name, is not passed over."""
    client.put_object(
        Bucket=BUCKET,
        Key=f"audit/{name}",
        Body=body,
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=dt.datetime.now(dt.UTC) + dt.timedelta(days=30),
    )
    with pytest.raises(MalformedProof, match=r"nothing that an anchor keeps|holds the checkpoint"):
        list(anchor.read())


def test_a_token_names_its_version(anchor: anchors.Anchor, client: Any) -> None:
    """Another checkpoint, another version, another bucket, junk."""
    one, two, _three = anchor.read()
    with pytest.raises(IntegrityFinding, match="holds another checkpoint"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=two.token))
    with pytest.raises(AnchorUnavailable, match=r"NoSuchVersion|Invalid version|FileNotFound|does not exist"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=one.token.replace(b'"version": "', b'"version": "0')))
    with pytest.raises(IntegrityFinding, match="expected one below"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=one.token.replace(b"evidence", b"elsewhere")))
    with pytest.raises(IntegrityFinding, match="or its token differs"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=one.token.replace(b'"until": "2', b'"until": "3')))
    for junk in (b"", b"{}", b"[]", b"\xff"):
        with pytest.raises(MalformedProof, match="is none of an object store"):
            anchor.verify(Anchored(checkpoint=one.checkpoint, token=junk))


def test_more_than_one_page_is_listed(anchor: anchors.Anchor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store gives a thousand names at a time."""
    from sa_audit.anchors import store

    ask = store.ObjectAnchor._call

    def two_at_a_time(self: Any, method: str, **arguments: Any) -> Any:
        return ask(self, method, **arguments, **({"MaxKeys": 2} if method == "list_object_versions" else {}))

    monkeypatch.setattr(store.ObjectAnchor, "_call", two_at_a_time)
    assert [each.checkpoint.size for each in anchor.read()] == [1, 5, 9]


def test_a_bucket_without_object_lock_is_refused(server: str, client: Any) -> None:
    """What can be removed is no anchor."""
    client.create_bucket(Bucket="plain")
    with pytest.raises((AnchorUnavailable, IntegrityFinding), match=r"(?i)lock"):
        opened(server, "plain/audit").put(TREE.checkpoint(1))


def test_a_store_that_is_not_there_says_so(server: str, client: Any, tmp_path: Path) -> None:
    """No such bucket, no such server: both name the anchor."""
    with pytest.raises(AnchorUnavailable, match=r"s3://nowhere/audit.*can't be used"):
        opened(server, "nowhere/audit").put(TREE.checkpoint(1))
    with pytest.raises(AnchorUnavailable, match="can't be used"):
        list(opened("http://127.0.0.1:9").read())


@pytest.mark.parametrize("uri", ["s3://B_/x", "s3://bucket/x?days=0", "s3://bucket/x?days=1.5", "s3://bucket/x?day=1"])
def test_a_uri_that_can_t_be_meant_is_refused(uri: str) -> None:
    """With what is wrong in it."""
    with pytest.raises(ConfigurationError, match=r"can't be the name|days=|its options are"):
        anchors.open(uri)
