"""``keygen``: makes a signing key for a log or a witness, and the verifier key that goes with it.

Imports proof, errors and typer only.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Group, RenderableType

from ..errors import UnusableKey
from ..proof import Signer
from ..proof.keys import witness_verifier, write_new
from .failure import WrongUsage
from .results import plain

PASSWORD: Final = "SA_AUDIT_KEY_PASSWORD"
ENCRYPTED: Final = "-----BEGIN ENCRYPTED PRIVATE KEY-----"
_NOT_IN_A_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9._-]|^[.-]")


@dataclass(frozen=True, slots=True)
class KeyResult:
    """A new key.  JSON: ``{"name", "key": path, "vkey": path, "verifier": text, "encrypted": bool}``."""

    name: str
    key: Path
    vkey: Path
    verifier: str
    encrypted: bool

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {
            "name": self.name,
            "key": str(self.key),
            "vkey": str(self.vkey),
            "verifier": self.verifier,
            "encrypted": self.encrypted,
        }

    def render(self) -> RenderableType:
        """Give it for people."""
        lock = "encrypted" if self.encrypted else "NOT encrypted"
        return Group(
            plain(f"{self.key}: the signing key, {lock}; keep it away from the database and those who run it"),
            plain(f"{self.vkey}: the verifier key; give it to all who check the trail"),
            plain(self.verifier),
        )


def make_key(name: str, directory: Path, password: str | None, *, witness: bool = False) -> KeyResult:
    """Make a key, and write both files.

    Args:
        name: the key's, which is the log's origin.
        directory: where the files go; it has to be there.
        password: encrypts the signing key; None leaves it open.
        witness: whether it is a witness's: its verifier key then has the type of cosignatures, 0x04.

    Raises:
        UnusableKey: if the name is not possible, a file is there already, or one can't be written.
    """
    signer = Signer.generate(name)
    stem = file_stem(name)
    key, vkey = directory / f"{stem}.key", directory / f"{stem}.vkey"
    if vkey.exists():
        raise UnusableKey(f"{vkey} is there already, and no key is overwritten: give another place")
    signer.save(key, password)
    verifier = witness_verifier(signer.verifier) if witness else signer.verifier
    write_new(vkey, f"{verifier}\n".encode(), mode=0o644)
    return KeyResult(name, key, vkey, str(verifier), password is not None)


def file_stem(name: str) -> str:
    """Give the name of a key's files: its own, with ``_`` for what is not a letter, digit, ``.``, ``_`` or ``-``."""
    return _NOT_IN_A_FILE_NAME.sub("_", name)


def ask_password(*, none: bool) -> str | None:
    """Give the password of a new key: from the environment, or from who sits at the terminal.

    Args:
        none: whether none was asked for.

    Raises:
        WrongUsage: if there is neither, or both a password and the wish for none.
    """
    given = os.environ.get(PASSWORD)
    if none and given:
        raise WrongUsage(f"--no-password, and {PASSWORD} is set: unset one of them")
    if none:
        return None
    if given:
        return given
    if not sys.stdin.isatty():
        raise WrongUsage(f"no password: set {PASSWORD}, or say --no-password for a key that lies open")
    password: str = typer.prompt("Password of the new key", hide_input=True, confirmation_prompt=True)
    return password


def open_key(path: Path) -> Signer:
    """Read a signing key, with the password from the environment, or from who sits at the terminal.

    Args:
        path: the key file.

    Raises:
        UnusableKey: if the file can't be read, or the password is missing or wrong.
    """
    given = os.environ.get(PASSWORD)
    if given is None and ENCRYPTED in _text(path) and sys.stdin.isatty():
        given = typer.prompt(f"Password of {path}", hide_input=True)
    return Signer.load(path, given)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UnusableKey(f"the key file {path} can't be read: {error.strerror or error}") from error
