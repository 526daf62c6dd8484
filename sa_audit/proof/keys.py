"""Keys: who signs checkpoints, and what they are checked with.  ``docs/format/checkpoint.md``.

A key in a KMS or HSM is any object with ``name``, ``verifier`` and ``sign(bytes)``: see :class:`SigningKey`.
Imports only the room's own parts and errors.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import IntegrityFinding, MalformedProof, UnusableKey
from .note import DASH, KEY_ID_SIZE, SignatureLine, as_text, decode_base64, require_key_name
from .pkcs8 import read_private_key, write_private_key

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
TIME_SIZE: Final = 8
MAX_KEY_FILE: Final = 64 * 1024
FILE_LINE: Final = "sa_audit-verifier: "
_KEY_ID: Final = re.compile("[0-9a-f]{8}")


class SigningKey(Protocol):
    """What signs: a :class:`Signer`, or an object of yours that asks a KMS or HSM."""

    @property
    def name(self) -> str:
        """The key's name; the log's origin."""

    @property
    def verifier(self) -> Verifier:
        """What its signatures are checked with."""

    def sign(self, message: bytes, /) -> bytes:
        """Give 64 bytes: the signature of Ed25519 (not of Ed25519ph) over the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """A public key with its name: what signatures are checked with.

    Args:
        name: the key's name, for a log its origin.
        public_key: 32 bytes of Ed25519.
        type: ``0x01`` for a log's signatures, ``0x04`` for a witness's cosignatures.

    Raises:
        MalformedProof: if one of them is not possible.
    """

    name: str
    public_key: bytes
    type: int = ED25519

    def __post_init__(self) -> None:
        require_key_name(self.name)
        if self.type not in (ED25519, COSIGNATURE):
            raise MalformedProof(
                f"the key {self.name!r:.80} has the signature type 0x{self.type:02x}: this library knows 0x01 and 0x04"
            )
        if len(self.public_key) != KEY_SIZE:
            raise MalformedProof(f"the key {self.name!r:.80} has {len(self.public_key)} bytes, and needs {KEY_SIZE}")

    @property
    def key_id(self) -> bytes:
        """The first 4 bytes of ``H(name || 0x0a || type || public key)``."""
        content = self.name.encode() + b"\n" + bytes((self.type,)) + self.public_key
        return hashlib.sha256(content).digest()[:KEY_ID_SIZE]

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes((self.type,)) + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read the text form ``<name>+<id>+<base64>``.

        Raises:
            MalformedProof: if it is not one in its one form, or the id is not that of the key.
        """
        name, _, rest = as_text(text, "verifier key", MAX_KEY_FILE).partition("+")
        key_id, separator, encoded = rest.partition("+")
        if not separator or _KEY_ID.fullmatch(key_id) is None:
            raise MalformedProof(f"{text!r:.120} is not a verifier key, <name>+<8 hexadecimal digits>+<base64>")
        raw = decode_base64(encoded, "verifier key")
        verifier = cls(name=name, type=raw[0] if raw else 0, public_key=raw[1:])
        if verifier.key_id.hex() != key_id:
            raise MalformedProof(f"the verifier key {name!r:.80} has the id {key_id}: expected {verifier.key_id.hex()}")
        return verifier

    @classmethod
    def load(cls, path_or_text: str | os.PathLike[str]) -> Verifier:
        """Read a verifier key from its text, or from a file that holds it.

        Args:
            path_or_text: see :func:`text_or_file`.

        Raises:
            UnusableKey: if the file can't be read.
            MalformedProof: if it does not hold a verifier key.
        """
        return cls.parse(text_or_file(path_or_text).removesuffix("\n"))

    def signs(self, line: SignatureLine) -> bool:
        """Tell whether a signature line claims to be of this key; :meth:`check` tells whether it is."""
        return line.name == self.name and line.key_id == self.key_id

    def check(self, text: str, line: SignatureLine) -> int | None:
        """Check a signature line of this key under a note's text.

        Returns:
            The time of a cosignature, in seconds since the epoch; None for a log's signature.

        Raises:
            IntegrityFinding: if the signature is not this key's over this text.
        """
        size = SIGNATURE_SIZE + (TIME_SIZE if self.type == COSIGNATURE else 0)
        if not self.signs(line) or len(line.signature) != size:
            raise self._finding(line)
        if self.type == ED25519:
            self._verify(text.encode(), line.signature, line)
            return None
        time = int.from_bytes(line.signature[:TIME_SIZE], "big")
        if time >= 1 << 63:
            raise self._finding(line)
        self._verify(cosigned_message(text, time), line.signature[TIME_SIZE:], line)
        return time

    def _verify(self, message: bytes, signature: bytes, line: SignatureLine) -> None:
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise self._finding(line) from error

    def _finding(self, line: SignatureLine) -> IntegrityFinding:
        return IntegrityFinding(
            f"the signature line {DASH}{line.name} {line.key_id.hex()} is not one of the key {self} over this text"
        )


class Signer:
    """A private key in memory, with its name; make one with :meth:`generate` or :meth:`load`."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._verifier = Verifier(name=name, public_key=key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<Signer {self._verifier}>"

    @property
    def name(self) -> str:
        """The key's name."""
        return self._verifier.name

    @property
    def verifier(self) -> Verifier:
        """What its signatures are checked with."""
        return self._verifier

    def sign(self, message: bytes, /) -> bytes:
        """Give the 64 bytes of Ed25519 over a message."""
        return self._key.sign(message)

    @classmethod
    def generate(cls, name: str) -> Signer:
        """Make a new key.

        Args:
            name: the log's origin, such as ``bank.example/audit``: no space, no plus.

        Raises:
            UnusableKey: if the name is not possible.
        """
        try:
            return cls(name, Ed25519PrivateKey.generate())
        except MalformedProof as error:
            raise UnusableKey(str(error)) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], password: str | None = None) -> Signer:
        """Read a key file.

        Args:
            path: the file that :meth:`save` wrote.
            password: its password, or None for a key that is not encrypted.

        Raises:
            UnusableKey: if the file can't be read, is none, or the password is missing, wrong or not needed.
        """
        content = _read(Path(path))
        first, _, _ = content.partition("\n")
        if not first.startswith(FILE_LINE):
            raise UnusableKey(f"{path} does not begin with {FILE_LINE!r}: it is not a key file of sa-audit keygen")
        try:
            named = Verifier.parse(first.removeprefix(FILE_LINE))
        except MalformedProof as error:
            raise UnusableKey(f"the first line of {path} is damaged: {error}") from error
        key = read_private_key(content.encode(), None if password is None else password.encode(), name=str(path))
        signer = cls(named.name, key)
        if signer.verifier != named:
            raise UnusableKey(f"{path} says that it holds {named}, and holds {signer.verifier}")
        return signer

    def save(self, path: str | os.PathLike[str], password: str | None = None) -> None:
        """Write the key to a new file that only its owner may read, and flush it to disk.

        Args:
            path: the file, which must not be there.
            password: encrypts the key (PKCS #8, PBES2); None leaves it readable to whoever reads the file.

        Raises:
            UnusableKey: if the file is there already or can't be written, or the password is empty.
        """
        if password == "":
            raise UnusableKey("the password is empty: give another one, or none")
        pem = write_private_key(self._key, None if password is None else password.encode())
        write_new(Path(path), f"{FILE_LINE}{self._verifier}\n".encode() + pem, mode=0o600)


def sign_line(signer: SigningKey, text: str) -> SignatureLine:
    """Sign a note's text as a log.

    Raises:
        UnusableKey: if what the signer gives is not a signature by its own verifier.
    """
    verifier = signer.verifier
    line = SignatureLine(name=verifier.name, key_id=verifier.key_id, signature=bytes(signer.sign(text.encode())))
    return _own(signer, verifier, text, line, ED25519)


def cosign_line(signer: SigningKey, verifier: Verifier, text: str, time: int) -> SignatureLine:
    """Sign a note's text as a witness.

    Args:
        signer: the witness's key.
        verifier: the same key, of type ``0x04``.
        text: the note's.
        time: in seconds since the epoch.

    Raises:
        UnusableKey: if what the signer gives is not a signature by that verifier.
    """
    if not 0 <= time < 1 << 63:
        raise UnusableKey(f"{time} is not a time in seconds since the epoch")
    stamped = time.to_bytes(TIME_SIZE, "big") + bytes(signer.sign(cosigned_message(text, time)))
    line = SignatureLine(name=verifier.name, key_id=verifier.key_id, signature=stamped)
    return _own(signer, verifier, text, line, COSIGNATURE)


def cosigned_message(text: str, time: int) -> bytes:
    """Give what a witness signs (C2SP tlog-cosignature)."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def witness_verifier(verifier: Verifier) -> Verifier:
    """Give the verifier of the same key as a witness."""
    return Verifier(name=verifier.name, public_key=verifier.public_key, type=COSIGNATURE)


def _own(signer: SigningKey, verifier: Verifier, text: str, line: SignatureLine, type_: int) -> SignatureLine:
    """Check what a signer gave, which may be a faulty service, before anybody relies on it."""
    if verifier.type != type_ or signer.name != verifier.name:
        raise UnusableKey(f"the signer {signer.name!r} has the verifier {verifier}, which is not one for this purpose")
    try:
        verifier.check(text, line)
    except IntegrityFinding as error:
        raise UnusableKey(f"the signer {signer.name!r} gave a signature that is not one of {verifier}") from error
    return line


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is not there yet, and flush it to disk.

    Raises:
        UnusableKey: if it is there already or can't be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UnusableKey(f"{path} is there already, and no key is overwritten: give another place") from error
    except OSError as error:
        raise UnusableKey(f"{path} can't be written: {error.strerror}") from error


def text_or_file(path_or_text: str | os.PathLike[str]) -> str:
    """Give a text, or the content of the file that it names.

    Args:
        path_or_text: text if it is a string that holds two plus signs or a newline and names no file; else a path.

    Raises:
        UnusableKey: if the file can't be read.
    """
    is_text = isinstance(path_or_text, str) and (path_or_text.count("+") >= 2 or "\n" in path_or_text)
    if isinstance(path_or_text, str) and is_text and not _is_file(path_or_text):
        return path_or_text
    return _read(Path(path_or_text))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE + 1)
        if len(content) > MAX_KEY_FILE:
            raise UnusableKey(f"{path} is too long for a key file")
        return content.decode()
    except (OSError, ValueError) as error:
        raise UnusableKey(f"the key file {path} can't be read: {error}") from error


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
