"""Signed checkpoints, verifier keys and policies.  A part of ``verify.py``; see this package."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from .cbor import text_of_utf8
from .ed25519 import ed25519
from .fault import TREE_LIMIT, Bad, need
from .tree import root_of

# -- signed notes, keys, policies (C2SP) --------------------------------------------------


def base64_of(said: str) -> bytes:
    """Decode base64 in its one form."""
    try:
        raw = base64.b64decode(said.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise Bad(f"has {said[:80]!r}, which is not base64") from None
    need(base64.b64encode(raw).decode("ascii") == said, "has {!r:.80}, base64 in another form", said)
    return raw


def number_of(said: str) -> int:
    """Read a number in its one form."""
    need(re.match(r"(0|[1-9][0-9]{0,18})\Z", said) and int(said) < TREE_LIMIT, "has {!r:.80} for a number", said)
    return int(said)


def text_within(data: bytes, limit: int) -> str:
    """Give the text of bytes that are not too long."""
    need(len(data) <= limit, "is longer than {} bytes", limit)
    return text_of_utf8(data)


class Checkpoint:
    """A signed checkpoint."""

    def __init__(self, data: bytes) -> None:
        whole = text_within(data, 128 * 1024)
        need(not re.search("[\x00-\x09\x0b-\x1f]", whole), "has a control character")
        body, blank, below = whole.rpartition("\n\n")
        need(blank and below.endswith("\n"), "has no signature lines")
        lines = below[:-1].split("\n")
        need(len(lines) <= 64, "has too many signature lines")
        self.text = body + "\n"
        self.signatures = [self._signature(each) for each in lines]
        said = body.split("\n")
        need(len(said) >= 3 and all(said), "is not origin, size and root")
        self.origin, self.size, self.root = said[0], number_of(said[1]), base64_of(said[2])
        need(len(self.root) == 32, "has a root that is not 32 bytes")
        need(self.size > 0 or self.root == root_of([]), "has a root that no empty tree has")

    @staticmethod
    def _signature(each: str) -> tuple[str, bytes, bytes]:
        parts = each.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014", "has the line {!r:.80}", each)
        check_name(parts[1])
        raw = base64_of(parts[2])
        need(len(raw) > 4, "has no signature in a line")
        return parts[1], raw[:4], raw[4:]


def check_name(name: str) -> None:
    """Refuse what can't be a key's name."""
    need(name and "+" not in name and not any(c.isspace() for c in name), "has the key name {!r:.80}", name)


class Key:
    """A verifier key: its name, its type, its 32 bytes."""

    def __init__(self, said: str) -> None:
        self.said = said
        parts = said.split("+", 2)
        need(len(parts) == 3 and re.match(r"[0-9a-f]{8}\Z", parts[1]), "has {!r:.80} for a verifier key", said)
        self.name, raw = parts[0], base64_of(parts[2])
        check_name(self.name)
        need(len(raw) == 33 and raw[0] in (1, 4), "has a verifier key of an unknown type")
        self.type, self.key = raw[0], raw[1:]
        self.id = hashlib.sha256(self.name.encode("utf-8") + b"\n" + raw).digest()[:4]
        need(self.id.hex() == parts[1], "has a verifier key whose id is not its own")

    def signed(self, checkpoint: Checkpoint) -> bool:
        """Tell whether it has signed; a line of it that does not verify makes all invalid."""
        lines = [s for name, key_id, s in checkpoint.signatures if name == self.name and key_id == self.id]
        for signature in lines:
            message = checkpoint.text.encode("utf-8")
            if self.type == 4:
                need(len(signature) == 72 and signature[0] < 128, "has a cosignature of another form")
                time = int.from_bytes(signature[:8], "big")
                message = f"cosignature/v1\ntime {time}\n".encode("ascii") + message
                signature = signature[8:]
            need(ed25519(self.key, message, signature), "has a false signature by {}", self.said)
        return bool(lines)


class Policy:
    """Which logs are trusted, and which witnesses have to have cosigned."""

    def __init__(self, source: str) -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        quorum = None
        for each in source.split("\n"):
            need(not re.search("[\x00-\x08\x0a-\x1f]", each), "has a control character")
            words = [w for w in re.split("[ \t]+", each) if w]
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "log" and len(words) in (2, 3):
                self.logs.append(Key(words[1]))
            elif words[0] == "witness" and len(words) in (3, 4):
                self._new(words[1])
                self.witnesses[words[1]] = Key(words[2])
            elif words[0] == "group" and len(words) >= 4:
                self._group(words)
            elif words[0] == "quorum" and len(words) == 2 and quorum is None:
                need(words[1] == "none" or self._known(words[1]), "has an unknown quorum")
                quorum = words[1]
            else:
                raise Bad(f"has the line {each[:80]!r}")
        need(quorum is not None, "has no quorum")
        self.quorum = quorum
        for keys, kind in ((self.logs, 1), (list(self.witnesses.values()), 4)):
            need(all(key.type == kind for key in keys), "has a key of the wrong type")
            need(len({key.key for key in keys}) == len(keys) <= 64, "has a key twice, or too many")

    def _known(self, name: str) -> bool:
        return name in self.witnesses or name in self.groups

    def _new(self, name: str) -> None:
        need(not self._known(name) and name != "none", "has a name twice, or none for one")

    def _group(self, words: list[str]) -> None:
        name, count, members = words[1], words[2], words[3:]
        self._new(name)
        used = [member for _count, others in self.groups.values() for member in others]
        need(len(set(members)) == len(members) and all(map(self._known, members)), "has an unknown member")
        need(not set(members) & set(used) and len(self.groups) < 64, "has a member of two groups")
        threshold = {"any": "1", "all": str(len(members))}.get(count, count)
        need(re.match(r"[0-9]{1,3}\Z", threshold) and 1 <= int(threshold) <= len(members), "has a threshold")
        self.groups[name] = (int(threshold), members)

    def check(self, checkpoint: Checkpoint) -> list[Key]:
        """Refuse a checkpoint that the policy does not accept; give the keys that have signed."""
        cosigned = {name for name, key in self.witnesses.items() if key.signed(checkpoint)}
        signers = [key for key in self.logs if key.name == checkpoint.origin and key.signed(checkpoint)]
        need(signers, "has no signature by {}", " or ".join(key.said for key in self.logs) or "a log")
        for name, (count, members) in self.groups.items():
            if len(cosigned & set(members)) >= count:
                cosigned.add(name)
        need(self.quorum == "none" or self.quorum in cosigned, "lacks the quorum {!r}", self.quorum)
        return signers


def policy_of(source: str) -> Policy:
    """Read a policy, or a verifier key."""
    stripped = source.strip("\n")
    if re.search("[ \t\n]", stripped):
        return Policy(source)
    return Policy(f"log {Key(stripped).said}\nquorum none\n")
