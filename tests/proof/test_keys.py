"""Keys: made, kept in files, loaded, used; and what must not pass for one."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from sa_audit.errors import IntegrityFinding, MalformedProof, UnusableKey
from sa_audit.proof import Checkpoint, Policy, Signer, Verifier, leaf_hash, tree_root
from sa_audit.proof.keys import COSIGNATURE, sign_line, witness_verifier
from sa_audit.proof.note import SignatureLine

NAME = "bank.example/audit"


@pytest.fixture(scope="module")
def signer() -> Signer:
    """A key."""
    return Signer.generate(NAME)


def checkpoint(origin: str = NAME) -> Checkpoint:
    """Give one to sign."""
    return Checkpoint(origin=origin, size=1, root=tree_root([leaf_hash(b"a")]))


def test_a_verifier_key_is_read_back(signer: Signer, tmp_path: Path) -> None:
    """From its text, from a file, from a path as text; and a witness's key is another one."""
    text = str(signer.verifier)
    (tmp_path / "log.vkey").write_text(text + "\n")
    assert Verifier.parse(text) == signer.verifier
    assert Verifier.load(text) == Verifier.load(tmp_path / "log.vkey") == Verifier.load(str(tmp_path / "log.vkey"))
    witness = witness_verifier(signer.verifier)
    assert Verifier.parse(str(witness)) == witness
    assert witness.type == COSIGNATURE
    assert witness.key_id != signer.verifier.key_id


def test_a_verifier_key_that_is_no_file_says_so(tmp_path: Path) -> None:
    """With the path, and a hint at nothing else."""
    with pytest.raises(UnusableKey, match=r"nowhere\.vkey"):
        Verifier.load(tmp_path / "nowhere.vkey")
    (tmp_path / "long.vkey").write_bytes(b"x" * 100_000)
    with pytest.raises(UnusableKey, match="too long"):
        Verifier.load(tmp_path / "long.vkey")


@pytest.mark.parametrize("password", [None, "correct horse", "\u00e9 \u2014"])
def test_a_key_file_is_read_back(signer: Signer, tmp_path: Path, password: str | None) -> None:
    """With its name, and readable to its owner alone."""
    path = tmp_path / "log.key"
    signer.save(path, password)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = Signer.load(path, password)
    assert loaded.verifier == signer.verifier
    assert loaded.sign(b"x") == signer.sign(b"x")
    assert "PRIVATE" not in repr(loaded)


def test_an_encrypted_key_is_hard_to_guess(signer: Signer, tmp_path: Path) -> None:
    """PBES2 with 600,000 rounds of PBKDF2, HMAC-SHA256, AES-256-CBC, as openssl reads it."""
    signer.save(tmp_path / "log.key", "pw")
    shown = subprocess.run(
        ["openssl", "asn1parse", "-in", str(tmp_path / "log.key")], capture_output=True, text=True, check=True
    ).stdout
    for expected in ("PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc", f"{600_000:06X}"):
        assert expected in shown
    public = subprocess.run(
        ["openssl", "pkey", "-in", str(tmp_path / "log.key"), "-passin", "pass:pw", "-pubout", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    assert public.endswith(signer.verifier.public_key)


def test_each_file_is_encrypted_anew(signer: Signer, tmp_path: Path) -> None:
    """Salt and initial vector are random."""
    for name in ("a.key", "b.key"):
        signer.save(tmp_path / name, "pw")
    assert (tmp_path / "a.key").read_bytes() != (tmp_path / "b.key").read_bytes()


def test_a_wrong_password_says_so(signer: Signer, tmp_path: Path) -> None:
    """Wrong, missing, needless or empty: each has its sentence, and none shows the password."""
    signer.save(tmp_path / "locked.key", "secret-password")
    signer.save(tmp_path / "open.key")
    with pytest.raises(UnusableKey, match="the password is wrong") as found:
        Signer.load(tmp_path / "locked.key", "other-password")
    assert "other-password" not in str(found.value)
    with pytest.raises(UnusableKey, match="is encrypted: give its password"):
        Signer.load(tmp_path / "locked.key")
    with pytest.raises(UnusableKey, match="is not encrypted"):
        Signer.load(tmp_path / "open.key", "x")
    with pytest.raises(UnusableKey, match="the password is empty"):
        signer.save(tmp_path / "new.key", "")


def test_no_key_is_overwritten(signer: Signer, tmp_path: Path) -> None:
    """A second keygen must not destroy the first key."""
    signer.save(tmp_path / "log.key")
    before = (tmp_path / "log.key").read_bytes()
    with pytest.raises(UnusableKey, match="no key is overwritten"):
        signer.save(tmp_path / "log.key")
    assert (tmp_path / "log.key").read_bytes() == before
    with pytest.raises(UnusableKey, match="can't be written"):
        signer.save(tmp_path / "nowhere" / "log.key")


def test_a_key_file_that_was_tampered_with_is_refused(signer: Signer, tmp_path: Path) -> None:
    """Another key under the same name, another name, no name, another kind of key, no key."""
    path = tmp_path / "log.key"
    signer.save(path)
    first, _, pem = path.read_text().partition("\n")
    Signer.generate(NAME).save(tmp_path / "other.key")
    other = (tmp_path / "other.key").read_text().partition("\n")[2]
    curve = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for content, message in (
        (f"{first}\n{other}", "says that it holds"),
        (first.replace(NAME, "eve.example") + f"\n{pem}", "is damaged"),
        (pem, "does not begin with"),
        (f"{first}\n{curve}", "is not one of Ed25519"),
        (f"{first}\n", "it is not a PKCS #8 key in PEM"),
        ("", "does not begin with"),
    ):
        path.write_text(content)
        with pytest.raises(UnusableKey, match=message):
            Signer.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UnusableKey, match="can't be read"):
        Signer.load(path)


def test_cryptography_reads_the_encrypted_key(signer: Signer, tmp_path: Path) -> None:
    """The file is PKCS #8 that any program reads, the line before it notwithstanding."""
    signer.save(tmp_path / "log.key", "pw")
    key = load_pem_private_key((tmp_path / "log.key").read_bytes(), b"pw")
    assert key.public_key().public_bytes_raw() == signer.verifier.public_key  # type: ignore[union-attr]  # Ed25519


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x00b", "a\ud800"])
def test_a_name_that_no_note_can_hold_is_refused(name: str) -> None:
    """Empty, with a space or plus, with a control character."""
    with pytest.raises(UnusableKey, match="can't be a key's name"):
        Signer.generate(name)


# -- signing -----------------------------------------------------------------------------


def test_a_signer_signs_for_its_own_log_only(signer: Signer) -> None:
    """The key's name is the origin."""
    with pytest.raises(MalformedProof, match=r"can't sign for the log 'other\.example'"):
        checkpoint("other.example").sign(signer)


class Remote:
    """A key in a service: all that is asked of it is a name, a verifier and signatures."""

    def __init__(self, signer: Signer, verifier: Verifier | None = None, *, broken: bool = False) -> None:
        self.name = NAME
        self.verifier = verifier or signer.verifier
        self._signer = signer
        self._broken = broken

    def sign(self, message: bytes, /) -> bytes:
        return bytes(64) if self._broken else self._signer.sign(message)


def test_any_object_can_sign(signer: Signer) -> None:
    """With name, verifier and sign: a KMS or an HSM."""
    signed = checkpoint().sign(Remote(signer))
    assert Policy.of(signer.verifier).check(signed).logs == (signer.verifier,)


def test_a_faulty_signer_is_found_before_anybody_relies_on_it(signer: Signer) -> None:
    """A signature that its own verifier refuses is never written down."""
    with pytest.raises(UnusableKey, match="gave a signature that is not one of"):
        checkpoint().sign(Remote(signer, broken=True))
    with pytest.raises(UnusableKey, match="gave a signature that is not one of"):
        checkpoint().sign(Remote(signer, Signer.generate(NAME).verifier))
    with pytest.raises(UnusableKey, match="which is not one for this purpose"):
        sign_line(Remote(signer, witness_verifier(signer.verifier)), checkpoint().text)


def test_a_cosignature_binds_its_time(signer: Signer) -> None:
    """A witness's time can't be moved, nor can its line stand for a log's."""
    witness = witness_verifier(signer.verifier)
    signed = checkpoint().cosign(signer, time=1_774_994_400)
    (line,) = signed.signatures
    assert witness.check(signed.text, line) == 1_774_994_400
    later = SignatureLine(name=line.name, key_id=line.key_id, signature=bytes(8) + line.signature[8:])
    beyond = SignatureLine(name=line.name, key_id=line.key_id, signature=b"\xff" * 8 + line.signature[8:])
    as_log = SignatureLine(name=line.name, key_id=signer.verifier.key_id, signature=line.signature[8:])
    for verifier, changed in ((witness, later), (witness, beyond), (signer.verifier, as_log)):
        with pytest.raises(IntegrityFinding):
            verifier.check(signed.text, changed)
    for time in (-1, 1 << 63):
        with pytest.raises(UnusableKey, match="is not a time"):
            checkpoint().cosign(signer, time=time)


@given(st.binary(), st.integers(0, 511))
def test_any_flipped_bit_of_a_signature_is_found(message: bytes, bit: int) -> None:
    """And any other text under it."""
    signer = _SHARED
    text = message.hex() + "\n"
    line = sign_line(signer, text)
    assert signer.verifier.check(text, line) is None
    flipped = bytearray(line.signature)
    flipped[bit // 8] ^= 1 << bit % 8
    for changed, signature in ((text, bytes(flipped)), ("x" + text, line.signature)):
        with pytest.raises(IntegrityFinding):
            signer.verifier.check(changed, SignatureLine(name=NAME, key_id=line.key_id, signature=signature))


_SHARED = Signer.generate(NAME)


def test_openssl_accepts_a_signature_and_refuses_another(signer: Signer, tmp_path: Path) -> None:
    """An independent judge: `openssl pkeyutl -verify -rawin` over the text of the note."""
    signed = checkpoint().sign(signer)
    prefix = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo of Ed25519, RFC 8410
    files = {name: tmp_path / name for name in ("key.der", "text", "false", "signature")}
    files["key.der"].write_bytes(prefix + signer.verifier.public_key)
    files["text"].write_text(signed.text)
    files["false"].write_text(signed.text.replace("\n1\n", "\n2\n"))
    files["signature"].write_bytes(signed.signatures[0].signature)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"]
    command += ["-inkey", str(files["key.der"]), "-sigfile", str(files["signature"]), "-in"]
    assert subprocess.run([*command, str(files["text"])], capture_output=True, check=False).returncode == 0
    assert subprocess.run([*command, str(files["false"])], capture_output=True, check=False).returncode != 0


def test_the_file_is_private_whatever_the_mask_says(signer: Signer, tmp_path: Path) -> None:
    """Mode 0600 is asked for when the file is made, so there is no moment in which others can read it."""
    before = os.umask(0)
    try:
        signer.save(tmp_path / "log.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log.key").stat().st_mode) == 0o600
