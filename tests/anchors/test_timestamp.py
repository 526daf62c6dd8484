"""The RFC 3161 anchor, against a local authority of OpenSSL, which others run over HTTP in the same way."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from sa_audit import anchors
from sa_audit.anchors import Anchored
from sa_audit.errors import AnchorUnavailable, ConfigurationError, IntegrityFinding, MalformedProof

from .answers import answering, reply
from .trees import Tree

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("rfc3161_client") is None, reason="needs the extra timestamp"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's program is not installed"),
]

CONFIG = """
[tsa]
default_tsa = ours
[ours]
serial = {place}/serial
crypto_device = builtin
signer_cert = {place}/tsa.pem
signer_key = {place}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha512
accuracy = secs:1
ordering = yes
ess_cert_id_chain = no
"""
EXTENSIONS = (
    "extendedKeyUsage=critical,timeStamping\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
)


class Authority:
    """A time-stamping authority made with OpenSSL; its replies carry the certificate that signed, and no chain."""

    def __init__(self, place: Path, name: str) -> None:
        self.place = place
        place.mkdir()
        (place / "serial").write_text("01\n")
        (place / "tsa.cnf").write_text(CONFIG.format(place=place))
        (place / "ext").write_text(EXTENSIONS)
        new = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        self._run(f"{new} -x509 -days 3650 -subj /CN={name} -keyout ca.key -out ca.pem")
        self._run(f"{new} -subj /CN={name}-tsa -keyout tsa.key -out tsa.csr")
        self._run("x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -days 3650 -set_serial 7 -extfile ext -out tsa.pem")

    @property
    def ca(self) -> Path:
        """The root."""
        return self.place / "ca.pem"

    def stamp(self, request: bytes) -> bytes:
        """Answer a request."""
        (self.place / "request").write_bytes(request)
        self._run("ts -reply -config tsa.cnf -queryfile request -out reply")
        return (self.place / "reply").read_bytes()

    def _run(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self.place, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that is trusted."""
    return Authority(tmp_path_factory.mktemp("tsa") / "good", "good")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one."""
    return Authority(tmp_path_factory.mktemp("tsa") / "stranger", "stranger")


@pytest.fixture(scope="module")
def url(authority: Authority) -> Iterator[str]:
    """Where the authority takes requests."""

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        assert handler.headers["Content-Type"] == "application/timestamp-query"
        reply(handler, 200, "application/timestamp-reply", authority.stamp(body))

    with answering(answer) as place:
        yield place


def opened(url: str, ca: Path, keep: Path) -> anchors.Anchor:
    """Give the anchor, by its URI."""
    return anchors.open(f"rfc3161+{url}?ca={ca}&keep={keep}")


def test_what_is_stamped_is_read_back_and_verified(url: str, authority: Authority, tmp_path: Path) -> None:
    """Also by another object, with the moment; OpenSSL accepts what is kept, as it stands."""
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    anchor = opened(url, authority.ca, tmp_path / "kept")
    assert anchor.latest() is None
    assert list(anchor.read()) == []
    put = [anchor.put(Tree().checkpoint(size)) for size in (1, 5)]
    again = opened(url, authority.ca, tmp_path / "kept")
    assert list(again.read()) == put
    assert again.latest() == put[1]
    assert put[1].at is not None
    assert before <= put[1].at <= dt.datetime.now(dt.UTC)
    assert again.verify(put[0]) == put[0].at
    for file in sorted((tmp_path / "kept").glob("*.tsr")):
        command = ["openssl", "ts", "-verify", "-data", file.with_suffix(".checkpoint"), "-in", file]
        subprocess.run([*command, "-CAfile", authority.ca], check=True, capture_output=True, timeout=30)


def test_putting_again_gives_the_same_token(url: str, authority: Authority, tmp_path: Path) -> None:
    """Whatever was asked for twice, after a crash, is stamped once."""
    anchor = opened(url, authority.ca, tmp_path / "kept")
    first = anchor.put(Tree().checkpoint(5))
    assert anchor.put(Tree().checkpoint(5)) == first
    assert opened("http://127.0.0.1:9", authority.ca, tmp_path / "kept").put(Tree().checkpoint(5)) == first


def test_a_crash_leaves_nothing_that_counts(url: str, authority: Authority, tmp_path: Path) -> None:
    """A checkpoint without its reply, and a file half written, are not looked at, and the same put makes it whole."""
    anchor = opened(url, authority.ca, tmp_path / "kept")
    anchor.put(Tree().checkpoint(5))
    reply_file = next((tmp_path / "kept").glob("*.tsr"))
    reply_file.rename(reply_file.with_name(f"{reply_file.name}.unfinished"))
    assert anchor.latest() is None
    put = anchor.put(Tree().checkpoint(5))
    assert list(anchor.read()) == [put]


def test_what_does_not_continue_is_not_stamped(url: str, authority: Authority, tmp_path: Path) -> None:
    """A smaller size, another root: refused before the authority is asked."""
    anchor = opened(url, authority.ca, tmp_path / "kept")
    anchor.put(Tree().checkpoint(5))
    for wrong in (Tree().checkpoint(4), Tree(b"rewritten").checkpoint(5)):
        with pytest.raises(IntegrityFinding, match="does not continue"):
            anchor.put(wrong)
    assert len(list(anchor.read())) == 1


def test_another_authority_is_found(url: str, authority: Authority, stranger: Authority, tmp_path: Path) -> None:
    """When it is put, nothing is kept; in what is kept, it is a finding."""
    anchor = opened(url, stranger.ca, tmp_path / "wrong")
    with pytest.raises(AnchorUnavailable, match="gave a reply that is not good"):
        anchor.put(Tree().checkpoint(5))
    assert anchor.latest() is None
    opened(url, authority.ca, tmp_path / "kept").put(Tree().checkpoint(5))
    with pytest.raises(IntegrityFinding, match="not one by"):
        list(opened(url, stranger.ca, tmp_path / "kept").read())


def test_a_reply_to_an_older_request_is_refused(authority: Authority, tmp_path: Path) -> None:
    """It has another nonce: a replay."""
    old: list[bytes] = []

    def replay(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        old.append(authority.stamp(body))
        reply(handler, 200, "application/timestamp-reply", old[0])

    with answering(replay) as place:
        opened(place, authority.ca, tmp_path / "one").put(Tree().checkpoint(5))
        with pytest.raises(AnchorUnavailable, match="Nonce"):
            opened(place, authority.ca, tmp_path / "two").put(Tree().checkpoint(5))


def test_a_token_holds_for_its_checkpoint_only(url: str, authority: Authority, tmp_path: Path) -> None:
    """Swapped, cut or flipped, in the files and in a bundle."""
    anchor = opened(url, authority.ca, tmp_path / "kept")
    one, two = anchor.put(Tree().checkpoint(1)), anchor.put(Tree().checkpoint(5))
    with pytest.raises(IntegrityFinding, match="Mismatch between messages"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=two.token))
    with pytest.raises(MalformedProof, match="RFC 3161"):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=one.token[:-1]))
    flipped = bytearray(one.token)
    flipped[-5] ^= 1
    with pytest.raises((IntegrityFinding, MalformedProof)):
        anchor.verify(Anchored(checkpoint=one.checkpoint, token=bytes(flipped)))
    files = sorted((tmp_path / "kept").glob("*.tsr"))
    files[0].write_bytes(two.token)
    with pytest.raises(IntegrityFinding):
        list(anchor.read())


def test_a_refusal_is_said(authority: Authority, tmp_path: Path) -> None:
    """In the authority's own words where it gives some."""

    def refuse(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        reply(handler, 200, "application/timestamp-reply", authority.stamp(b"no request"))

    with answering(refuse) as place, pytest.raises(AnchorUnavailable, match="refused to stamp, with the status 2"):
        opened(place, authority.ca, tmp_path / "kept").put(Tree().checkpoint(5))


@pytest.mark.parametrize(
    ("status", "content_type", "body", "message"),
    [
        (500, "text/plain", b"out of\x1b[31m order", "answered with 500 text/plain.*out of.*order"),
        (200, "text/html", b"<p>login</p>", "where 200 application/timestamp-reply has to stand: <p>login</p>"),
        (200, "application/timestamp-reply", b"\x30\x03junk", "is no reply of a time-stamping authority"),
        (302, "text/plain", b"elsewhere", "answered with 302"),
    ],
)
def test_what_is_no_reply_is_not_kept(
    authority: Authority, tmp_path: Path, status: int, content_type: str, body: bytes, message: str
) -> None:
    """An error page, a login, junk, a redirect."""

    def answer(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        reply(handler, status, content_type, body)

    with answering(answer) as place, pytest.raises(AnchorUnavailable, match=message) as caught:
        opened(place, authority.ca, tmp_path / "kept").put(Tree().checkpoint(5))
    assert "\x1b" not in str(caught.value)
    assert list((tmp_path / "kept").iterdir()) == []


def test_strange_files_are_refused(url: str, authority: Authority, tmp_path: Path) -> None:
    """What stands among the tokens and is none, or is under another's name, is not passed over."""
    anchor = opened(url, authority.ca, tmp_path / "kept")
    anchor.put(Tree().checkpoint(5))
    (tmp_path / "kept" / "notes.txt").write_text("x")
    with pytest.raises(MalformedProof, match=r"notes\.txt is nothing that an anchor keeps"):
        list(anchor.read())
    (tmp_path / "kept" / "notes.txt").unlink()
    file = next((tmp_path / "kept").glob("*.checkpoint"))
    file.write_text(Tree().checkpoint(6).format())
    with pytest.raises(MalformedProof, match="holds the checkpoint 00000000000000000006"):
        list(anchor.read())
    file.unlink()
    with pytest.raises(MalformedProof, match="stands without its checkpoint"):
        list(anchor.read())


def test_without_a_place_to_keep_it_nothing_is_stamped(url: str, authority: Authority, tmp_path: Path) -> None:
    """The error names the place and the option."""
    with pytest.raises(AnchorUnavailable, match=r"nowhere/kept.*keep=DIR"):
        opened(url, authority.ca, tmp_path / "nowhere" / "kept").put(Tree().checkpoint(5))


def test_the_place_is_beside_the_certificates_if_none_is_said(url: str, authority: Authority, tmp_path: Path) -> None:
    """So that the URI of the manual works as it stands."""
    shutil.copy(authority.ca, tmp_path / "ca.pem")
    anchor = anchors.open(f"rfc3161+{url}?ca={tmp_path / 'ca.pem'}")
    anchor.put(Tree().checkpoint(5))
    assert len(list((tmp_path / "ca.pem.kept").iterdir())) == 2
    assert list(anchors.open(anchor.uri).read()) == list(anchor.read())


def test_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    """When the anchor is opened, not when it is needed."""
    (tmp_path / "ca.pem").write_text("junk")
    with pytest.raises(ConfigurationError, match="does not hold certificates"):
        opened("http://127.0.0.1:9", tmp_path / "ca.pem", tmp_path / "kept")
    with pytest.raises(ConfigurationError, match="nowhere can't be read"):
        opened("http://127.0.0.1:9", tmp_path / "nowhere", tmp_path / "kept")
