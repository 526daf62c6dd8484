"""Private keys as PKCS #8 in PEM, encrypted by PBES2: PBKDF2 with HMAC-SHA256, AES-256-CBC (RFC 5958, RFC 8018).

`cryptography` writes the same, but with 2,048 rounds, which is too few for a key that lies in a file for years.
Reading is `cryptography`'s.  Imports only errors.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ..errors import UnusableKey

ROUNDS: Final = 600_000
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2: Final = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256: Final = bytes.fromhex("300c06082a864886f70d02090500")  # with its NULL parameters
_AES256_CBC: Final = bytes.fromhex("060960864801650304012a")


def write_private_key(key: Ed25519PrivateKey, password: bytes | None) -> bytes:
    """Give a private key in PEM, encrypted if a password is given."""
    if password is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return _pem("ENCRYPTED PRIVATE KEY", _encrypted(plain, password, salt=os.urandom(16), iv=os.urandom(16)))


def read_private_key(pem: bytes, password: bytes | None, *, name: str) -> Ed25519PrivateKey:
    """Read a private key in PEM.

    Args:
        pem: the file's content; lines before the first boundary are skipped.
        password: or None for a key that is not encrypted.
        name: the file's, for the message.

    Raises:
        UnusableKey: if it is no such key, of another kind, or the password is missing, wrong or not needed.
    """
    encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem
    if encrypted and password is None:
        raise UnusableKey(f"the key in {name} is encrypted: give its password")
    if not encrypted and password is not None:
        raise UnusableKey(f"the key in {name} is not encrypted: give no password, or encrypt it")
    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "the password is wrong, or the file is damaged" if encrypted else "it is not a PKCS #8 key in PEM"
        raise UnusableKey(f"the key in {name} can't be read: {why}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKey(f"the key in {name} is not one of Ed25519: make one with sa-audit keygen")
    return key


def _encrypted(plain: bytes, password: bytes, *, salt: bytes, iv: bytes) -> bytes:
    """Give EncryptedPrivateKeyInfo (RFC 5958, section 3) in DER."""
    derived = PBKDF2HMAC(hashes.SHA256(), 32, salt, ROUNDS).derive(password)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(derived), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    rounds = _der(0x02, ROUNDS.to_bytes(3, "big"))
    derivation = _der(0x30, _PBKDF2 + _der(0x30, _der(0x04, salt) + rounds + _HMAC_SHA256))
    scheme = _der(0x30, _AES256_CBC + _der(0x04, iv))
    algorithm = _der(0x30, _PBES2 + _der(0x30, derivation + scheme))
    return _der(0x30, algorithm + _der(0x04, ciphertext))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 | len(octets))) + octets + content


def _pem(label: str, der: bytes) -> bytes:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode("ascii")
