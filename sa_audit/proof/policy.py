"""Policies: which keys a checkpoint has to be signed by.  C2SP tlog-policy, and ``docs/format/checkpoint.md``.

A policy comes from who checks, never from what is checked.  Imports only the room's own parts and errors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import IntegrityFinding, MalformedProof
from .checkpoint import Checkpoint
from .entries import KeyEntry
from .keys import COSIGNATURE, ED25519, Verifier, text_or_file
from .note import as_text
from .types import MAX_SIZE

MAX_POLICY: Final = 64 * 1024
MAX_LINES: Final = 64
"""The most logs, witnesses and groups, of each sort."""
NONE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Witnesses and groups of which at least ``threshold`` have to have cosigned."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Who has signed a checkpoint: the logs' keys, and the witnesses by name with their times (seconds, UTC)."""

    logs: tuple[Verifier, ...]
    witnesses: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which logs' keys are trusted, and which witnesses have to have cosigned.

    Args:
        logs: keys of type ``0x01``; a log's key has the origin as its name.
        witnesses: by name, keys of type ``0x04``.
        groups: by name, each of witnesses and groups before it.
        quorum: the name of a witness or group, or ``none``.

    Raises:
        MalformedProof: if it breaks a rule of the format.
    """

    logs: tuple[Verifier, ...]
    witnesses: Mapping[str, Verifier] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    quorum: str = NONE

    def __post_init__(self) -> None:
        _require_keys(self.logs, ED25519, "log")
        _require_keys(tuple(self.witnesses.values()), COSIGNATURE, "witness")
        known = set(self.witnesses)
        used: set[str] = set()
        if known & set(self.groups) or NONE in (*self.witnesses, *self.groups):
            raise MalformedProof("the policy gives a name twice, or the name none")
        for name, group in self.groups.items():
            members = set(group.members)
            if not members <= known or len(members) != len(group.members) or members & used:
                raise MalformedProof(f"the group {name!r} of the policy has a member that is unknown or used already")
            if not 1 <= group.threshold <= len(group.members):
                raise MalformedProof(f"the group {name!r} of the policy asks for {group.threshold} of {len(members)}")
            used |= members
            known.add(name)
        if self.quorum not in known | {NONE}:
            raise MalformedProof(f"the quorum {self.quorum!r} of the policy is not the name of a witness or group")
        if max(len(self.logs), len(self.witnesses), len(self.groups)) > MAX_LINES:
            raise MalformedProof(f"the policy has more than {MAX_LINES} lines of one sort")

    @classmethod
    def of(cls, *logs: Verifier) -> Policy:
        """Give the policy that trusts these keys and asks for no witness."""
        return cls(logs=logs)

    @classmethod
    def load(cls, path_or_text: str | os.PathLike[str]) -> Policy:
        """Read a policy, or a verifier key, from text or a file.

        Args:
            path_or_text: a file's path, or text: a verifier key, or a policy of several lines.

        Raises:
            UnusableKey: if the file can't be read.
            MalformedProof: if it holds neither.
        """
        text = text_or_file(path_or_text)
        stripped = text.strip("\n")
        if any(space in stripped for space in " \t\n"):
            return cls.parse(text)
        return cls.of(Verifier.parse(stripped))

    @classmethod
    def parse(cls, source: str | bytes) -> Policy:
        """Read a policy.

        Raises:
            MalformedProof: naming the line that is not one.
        """
        text = as_text(source, "policy", MAX_POLICY)
        reader = _Lines()
        for number, line in enumerate(text.split("\n"), start=1):
            if any(char < " " and char != "\t" for char in line):
                raise MalformedProof(f"line {number} of the policy has a control character in it")
            words = line.replace("\t", " ").strip(" ").split(" ")
            words = [word for word in words if word]
            if words and not words[0].startswith("#"):
                reader.read(number, words)
        return reader.policy()

    def format(self) -> str:
        """Give the policy as text."""
        lines = [f"log {verifier}" for verifier in self.logs]
        lines += [f"witness {name} {verifier}" for name, verifier in self.witnesses.items()]
        lines += [f"group {name} {group.threshold} {' '.join(group.members)}" for name, group in self.groups.items()]
        return "".join(f"{line}\n" for line in (*lines, f"quorum {self.quorum}"))

    def check(self, checkpoint: Checkpoint, *, keys: KeyHistory | None = None, vouched: bool = False) -> Signed:
        """Refuse a checkpoint that the policy does not accept.

        Args:
            checkpoint: what is to be trusted.
            keys: when each key of the log served, from its key events; None trusts each at every size.
            vouched: whether something that a thief can't make (an anchor, an older copy, consistency with a later
                checkpoint of a good key) shows that the checkpoint is older than the theft of a revoked key.

        Raises:
            IntegrityFinding: if a trusted key's line does not verify, no trusted key has signed, or the quorum of
                witnesses has not cosigned.
        """
        witnesses = self._cosigned(checkpoint)
        signed = [key for key in self.logs if key.name == checkpoint.origin and _has_signed(checkpoint, key)]
        logs = tuple(
            key
            for key in signed
            if keys is None or keys.counts(key, checkpoint.size, vouched=vouched, witnessed=witnesses.values())
        )
        if not logs:
            said = f"{len(signed)} by keys that don't count at that size" if signed else "none"
            raise IntegrityFinding(
                f"the checkpoint of {checkpoint.origin!r} at size {checkpoint.size} has no signature that counts: "
                f"expected one by {' or '.join(str(key) for key in self.logs) or 'a log'}, got {said}"
            )
        if not self._has_quorum(set(witnesses)):
            raise IntegrityFinding(
                f"the checkpoint of {checkpoint.origin!r} at size {checkpoint.size} lacks cosignatures: "
                f"expected the quorum {self.quorum!r}, got {', '.join(sorted(witnesses)) or 'none'}"
            )
        return Signed(logs=logs, witnesses=witnesses)

    def _cosigned(self, checkpoint: Checkpoint) -> dict[str, int]:
        times: dict[str, int] = {}
        for name, verifier in self.witnesses.items():
            found = [verifier.check(checkpoint.text, line) for line in checkpoint.signatures if verifier.signs(line)]
            moments = [time for time in found if time is not None]
            if moments:
                times[name] = min(moments)
        return times

    def _has_quorum(self, cosigned: set[str]) -> bool:
        for name, group in self.groups.items():
            if len(cosigned & set(group.members)) >= group.threshold:
                cosigned.add(name)
        return self.quorum == NONE or self.quorum in cosigned


def _has_signed(checkpoint: Checkpoint, key: Verifier) -> bool:
    lines = [line for line in checkpoint.signatures if key.signs(line)]
    for line in lines:
        key.check(checkpoint.text, line)
    return bool(lines)


def _require_keys(verifiers: tuple[Verifier, ...], type_: int, sort: str) -> None:
    seen: set[bytes] = set()
    for verifier in verifiers:
        if verifier.type != type_:
            raise MalformedProof(f"the {sort} {verifier} has the signature type 0x{verifier.type:02x}")
        if verifier.public_key in seen:
            raise MalformedProof(f"the {sort} {verifier} stands twice in the policy")
        seen.add(verifier.public_key)


class _Lines:
    """The lines of a policy, collected."""

    def __init__(self) -> None:
        self.logs: list[Verifier] = []
        self.witnesses: dict[str, Verifier] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None

    def read(self, number: int, words: list[str]) -> None:
        match words:
            case ["log", key] | ["log", key, _]:
                self.logs.append(Verifier.parse(key))
            case ["witness", name, key] | ["witness", name, key, _] if self._is_new(name):
                self.witnesses[name] = Verifier.parse(key)
            case ["group", name, threshold, *members] if members and self._is_new(name):
                self.groups[name] = Group(threshold=_threshold(threshold, members, number), members=tuple(members))
            case ["quorum", name] if self.quorum is None and (name == NONE or not self._is_new(name)):
                self.quorum = name
            case _:
                raise MalformedProof(f"line {number} of the policy can't be meant: {' '.join(words)!r:.120}")

    def _is_new(self, name: str) -> bool:
        return name not in self.witnesses and name not in self.groups and name != NONE

    def policy(self) -> Policy:
        if self.quorum is None:
            raise MalformedProof("the policy has no quorum line: write quorum none to ask for no witness")
        return Policy(logs=tuple(self.logs), witnesses=self.witnesses, groups=self.groups, quorum=self.quorum)


def _threshold(word: str, members: list[str], number: int) -> int:
    if word in ("any", "all"):
        return 1 if word == "any" else len(members)
    if not word.isascii() or not word.isdigit() or len(word) > 3:
        raise MalformedProof(f"line {number} of the policy asks for {word!r:.80} members: give all, any or a number")
    return int(word)


# -- when keys served --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """When one key served: sizes from ``first`` on, up to ``end`` and not with it; ``revoked_at`` in microseconds."""

    first: int
    end: int = MAX_SIZE
    last_good: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """When each key of a log served, from the log's own key events."""

    services: Mapping[str, Service]

    @classmethod
    def of(cls, events: Iterable[KeyEntry]) -> KeyHistory:
        """Read the history off the events, in the order of the log.

        Raises:
            IntegrityFinding: if an event does not fit those before it.
        """
        services: dict[str, Service] = {}
        for event in events:
            known = services.get(event.verifier)
            services[event.verifier] = _after(known, event)
        return cls(services)

    def counts(self, key: Verifier, size: int, *, vouched: bool = False, witnessed: Iterable[int] = ()) -> bool:
        """Tell whether a key's signature on a checkpoint counts.

        Args:
            key: the key.
            size: of the checkpoint.
            vouched: see :meth:`Policy.check`.
            witnessed: the times of cosignatures by trusted witnesses, in seconds since the epoch.
        """
        service = self.services.get(str(key))
        if service is None or not service.first <= size < service.end:
            return False
        if service.revoked_at is None or service.last_good is None:
            return True
        before = any(time * 1_000_000 < service.revoked_at for time in witnessed)
        return size <= service.last_good and (vouched or before)


def _after(known: Service | None, event: KeyEntry) -> Service:
    if event.event == "add" and known is None:
        return Service(first=event.size)
    if event.event == "retire" and known is not None and known.first <= event.size < known.end:
        return Service(first=known.first, end=event.size, last_good=known.last_good, revoked_at=known.revoked_at)
    if event.event == "revoke" and known is not None and known.revoked_at is None:
        return Service(first=known.first, end=known.end, last_good=event.size, revoked_at=event.moment)
    raise IntegrityFinding(
        f"the key event {event.event} of {event.verifier} at size {event.size} does not fit those before it"
    )
