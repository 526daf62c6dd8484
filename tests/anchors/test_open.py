"""How an anchor is named: one URI each, and a sentence for what can't be meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sa_audit import anchors
from sa_audit.errors import ConfigurationError
from sa_audit.proof.keys import witness_verifier
from tests.vectors.samples import NORTH


@pytest.fixture
def vkey(tmp_path: Path) -> Path:
    """A witness's verifier key, in a file whose name needs escaping in a URI."""
    path = tmp_path / "north & south.vkey"
    path.write_text(f"{witness_verifier(NORTH.verifier)}\n")
    return path


def test_options_are_escaped(vkey: Path) -> None:
    """A path with an ampersand in it, a port, a path and a time."""
    escaped = str(vkey).replace(" ", "%20").replace("&", "%26")
    anchor = anchors.open(f"witness+https://w.example:8443/north/?vkey={escaped}&timeout=2.5&keep=/kept")
    assert isinstance(anchor, anchors.WitnessAnchor)
    assert (anchor.url, anchor.vkey) == ("https://w.example:8443/north", vkey)
    again = anchors.open(anchor.uri)
    assert isinstance(again, anchors.WitnessAnchor)
    assert (again.url, again.vkey, again.uri) == (anchor.url, anchor.vkey, anchor.uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("witness+https://w.example/", "lacks vkey=FILE"),
        ("witness+https:///x?vkey=VKEY", "names no place"),
        ("witness+https://?vkey=VKEY", "names no place"),
        ("witness+https://w.example/x?vkey=VKEY#part", "names no place"),
        ("witness+https://w.example:port/?vkey=VKEY", "can't be read"),
        ("witness+https://[w.example/?vkey=VKEY", "can't be read"),
        ("witness+https://w.example/?vkey", "can't be read"),
        ("witness+https://w.example/?vkey=VKEY&vkye=x", "'vkye', which is unknown"),
        ("witness+https://w.example/?vkey=VKEY&keep=", "'keep', which is unknown or empty"),
        ("witness+https://w.example/?vkey=VKEY&vkey=VKEY", "an option twice"),
        ("witness+https://w.example/?vkey=VKEY&timeout=soon", "timeout=soon: give a number from 0 to 600"),
        ("witness+https://w.example/?vkey=VKEY&timeout=0", "timeout=0: give a number"),
        ("witness+https://w.example/?vkey=VKEY&timeout=nan", "timeout=nan: give a number"),
        ("witness+https://w.example/?vkey=VKEY&timeout=1e9", "timeout=1e9: give a number"),
        ("witness://w.example/?vkey=VKEY", "there is no anchor"),
        ("witness+ftp://w.example/?vkey=VKEY", "there is no anchor"),
        ("rfc3161+https://tsa.example/", "lacks ca=FILE"),
        ("https://tsa.example/?ca=FILE", "there is no anchor"),
    ],
)
def test_what_can_t_be_meant_is_refused(vkey: Path, uri: str, message: str) -> None:
    """With the URI, and what is wrong in it."""
    plain = vkey.with_name("w.vkey")
    vkey.rename(plain)
    if uri.startswith("rfc3161"):
        pytest.importorskip("rfc3161_client", reason="needs the extra timestamp")
    with pytest.raises(ConfigurationError, match=message):
        anchors.open(uri.replace("VKEY", str(plain)))


def test_a_password_is_not_shown(vkey: Path) -> None:
    """It is refused, since a URI goes into logs, and the refusal does not print it."""
    with pytest.raises(ConfigurationError, match="holds a user or a password") as caught:
        anchors.open(f"witness+https://me:secret@w.example/?vkey={vkey}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "module", "uri", "extra"),
    [
        ("rfc3161_client", "timestamp", "rfc3161+https://tsa.example/?ca=ca.pem", "timestamp"),
        ("s3fs", "store", "s3://bucket/prefix", "s3"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, module: str, uri: str, extra: str
) -> None:
    """With the command that installs it."""
    monkeypatch.delitem(sys.modules, f"sa_audit.anchors.{module}", raising=False)
    monkeypatch.delattr(anchors, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'sa-audit\[{extra}\]'"):
        anchors.open(uri)
