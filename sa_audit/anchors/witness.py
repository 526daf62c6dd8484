"""The witness anchor: somebody else, over HTTP, who signs that a checkpoint continues all that he has seen of the log.

The client of C2SP tlog-witness, for ``sa-audit witness`` and any other.  A witness hands out no old cosignatures, so
the cosigned checkpoints are kept in a directory.  Imports only proof and errors.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ..errors import AnchorUnavailable, ConfigurationError, IntegrityFinding, MalformedProof, UnusableKey
from ..proof import Checkpoint, Verifier
from ..proof.keys import COSIGNATURE
from ..proof.note import decode_number, parse_note
from ..proof.types import Digest
from .addcheckpoint import SIZE_TYPE, AddCheckpoint, checkpoint_path
from .anchor import Anchored, Prove, require_continued
from .http import Answer, get, post
from .kept import Kept
from .uri import TIMEOUT, with_options

TEXT: Final = "text/plain; charset=utf-8"
MAX_TRIES: Final = 4


class WitnessAnchor:
    """A witness (C2SP tlog-witness).

    Args:
        url: the submission prefix, ``http://`` or ``https://``: what it answers is signed.
        vkey: a file with the witness's verifier key, of type ``0x04``.
        keep: the directory for cosigned checkpoints; beside ``vkey``, with ``.kept`` behind its name, if not given.
        timeout: seconds for an answer.

    Raises:
        ConfigurationError: if ``vkey`` can't be read, or is no witness's.
    """

    def __init__(
        self,
        url: str,
        *,
        vkey: str | os.PathLike[str],
        keep: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.url = url.rstrip("/")
        self.vkey = Path(vkey)
        self._timeout = timeout
        self.verifier = _witness_key(self.vkey)
        self._kept = Kept(keep if keep is not None else f"{self.vkey}.kept", None)

    def __repr__(self) -> str:
        return f"<WitnessAnchor {self.url}>"

    @property
    def uri(self) -> str:
        """``witness+URL?vkey=FILE&keep=DIR``."""
        return with_options(f"witness+{self.url}", vkey=self.vkey, keep=self._kept.path)

    def put(self, checkpoint: Checkpoint, *, prove: Prove | None = None) -> Anchored:
        """Have a signed checkpoint cosigned, and keep the cosignature; see :meth:`.anchor.Anchor.put`.

        The witness is asked each time, also for what is kept already: it is what knows the greatest size.

        Raises:
            IntegrityFinding: if the witness has seen a greater tree of this log or another one, or the proof does not
                lead from what it has seen to this.
            AnchorUnavailable: if it does not answer, does not know the log or its key, or has seen an older size and
                there is no ``prove`` to lead on from there.
        """
        with self._kept.locked():
            last = self._kept.last()
            if last is not None:
                require_continued(last[0], checkpoint)
            cosigned = self._cosigned(checkpoint, last[0].size if last is not None else 0, prove)
            if last is not None and last[0].text == checkpoint.text:
                return self._verified(*last)
            self._kept.add(cosigned.checkpoint, cosigned.token, cosigned.token)
        return cosigned

    def read(self) -> Iterator[Anchored]:
        """Yield what is kept, oldest first, each cosignature verified; then what the witness itself shows.

        A witness that shows nothing, since C2SP asks for no such thing, is passed over; ``sa-audit witness`` does.
        """
        last = None
        for checkpoint, token in self._kept.read():
            require_continued(last, checkpoint)
            yield self._verified(checkpoint, token)
            last = checkpoint
        shown = None if last is None else self.shown(last.origin)
        if last is None or shown is None or shown.checkpoint.text == last.text:
            return
        if shown.checkpoint.size < last.size:
            raise self._forgotten(shown.checkpoint.size, last.size)
        require_continued(last, shown.checkpoint)
        yield shown

    def latest(self) -> Anchored | None:
        """Give what was kept last, with its cosignature verified, or None."""
        last = self._kept.last()
        return None if last is None else self._verified(*last)

    def verify(self, anchored: Anchored) -> dt.datetime:
        """Refuse a token that is not this checkpoint with a cosignature by this witness."""
        checkpoint = Checkpoint.parse(anchored.token)
        if checkpoint.text != anchored.checkpoint.text:
            raise IntegrityFinding(
                f"the token is for another checkpoint: expected {anchored.checkpoint.text!r:.200}, "
                f"got {checkpoint.text!r:.200}"
            )
        return self._time(checkpoint)

    def shown(self, origin: str) -> Anchored | None:
        """Ask the witness which checkpoint of a log it has cosigned last.

        Returns:
            The checkpoint, verified; None if the witness has none, or does not hand out such things.

        Raises:
            MalformedProof, IntegrityFinding: if it hands out something else.
            AnchorUnavailable: if it does not answer.
        """
        answer = get(self.url + checkpoint_path(origin), timeout=self._timeout)
        if answer.status in (404, 405):
            return None
        if answer.status != 200:
            raise self._refused(answer)
        checkpoint = Checkpoint.parse(answer.body)
        if checkpoint.origin != origin:
            raise IntegrityFinding(f"{self.url} shows a checkpoint of {checkpoint.origin!r}: expected {origin!r}")
        return self._verified(checkpoint, answer.body)

    def _cosigned(self, checkpoint: Checkpoint, old: int, prove: Prove | None) -> Anchored:
        """Send a checkpoint until the witness cosigns it, from the size that it says."""
        kept = old
        for _ in range(MAX_TRIES):
            path = _path(old, checkpoint, prove)
            if path is None:
                raise AnchorUnavailable(
                    f"{self.url} has seen the log at size {old}, and to go on to {checkpoint.size} it needs a "
                    "consistency proof: give prove="
                )
            request = AddCheckpoint(old=old, path=path, checkpoint=checkpoint)
            answer = post(f"{self.url}/add-checkpoint", request.format(), TEXT, timeout=self._timeout)
            if answer.status == 200:
                return self._answered(checkpoint, answer)
            if answer.status != 409:
                raise self._refused(answer, checkpoint, old)
            old = self._older(checkpoint, answer, old, kept)
        raise AnchorUnavailable(f"{self.url} says another size each time it is asked, {MAX_TRIES} times: try again")

    def _answered(self, checkpoint: Checkpoint, answer: Answer) -> Anchored:
        """Read the cosignatures, leaving out those by keys that nobody asked for."""
        try:
            lines = parse_note(f"{checkpoint.text}\n".encode() + answer.body).signatures
            own = tuple(line for line in lines if self.verifier.signs(line))
            time = self._time(replace(checkpoint, signatures=own))
        except (MalformedProof, IntegrityFinding) as error:
            raise AnchorUnavailable(f"{self.url} gave no cosignature by {self.verifier}: {error}") from error
        others = (line for line in checkpoint.signatures if not self.verifier.signs(line))
        cosigned = replace(checkpoint, signatures=(*others, *own))
        return Anchored(checkpoint=cosigned, token=cosigned.format().encode(), at=time)

    def _older(self, checkpoint: Checkpoint, answer: Answer, old: int, kept: int) -> int:
        """Read the size that a witness has seen off its 409, and refuse what can't be gone on from."""
        if answer.type != SIZE_TYPE or not answer.body.endswith(b"\n") or len(answer.body) > 20:
            raise self._refused(answer, checkpoint, old)
        try:
            seen = decode_number(answer.body[:-1].decode("ascii"), "size that the witness has seen")
        except (UnicodeDecodeError, MalformedProof) as error:
            raise AnchorUnavailable(f"{self.url} answered with a size that is none: {answer.said()}") from error
        if seen > checkpoint.size:
            raise IntegrityFinding(
                f"{self.url} has seen a greater tree of {checkpoint.origin!r}: expected at most {checkpoint.size} "
                f"leaves, got {seen}; this log lacks its end, or is another one under the same name"
            )
        if seen == old:
            raise IntegrityFinding(
                f"{self.url} has seen another tree of {checkpoint.origin!r} at size {seen}: this one, with the root "
                f"{checkpoint.root.hex()}, is a fork"
            )
        if seen < kept:
            raise self._forgotten(seen, kept)
        return seen

    def _refused(self, answer: Answer, checkpoint: Checkpoint | None = None, old: int = 0) -> Exception:
        said = f"{self.url} answered with {answer.status}: {answer.said()}"
        if checkpoint is None:
            return AnchorUnavailable(said)
        if answer.status == 422:
            return IntegrityFinding(
                f"the tree of {checkpoint.size} leaves does not continue that of {old} which the witness has seen; "
                f"{said}"
            )
        reasons = {404: f"it does not know the log {checkpoint.origin!r}", 403: "it trusts no key that has signed"}
        return AnchorUnavailable(f"{said}; {reasons.get(answer.status, 'it has cosigned nothing')}")

    def _forgotten(self, seen: int, kept: int) -> IntegrityFinding:
        return IntegrityFinding(
            f"{self.url} has forgotten what it cosigned: expected at least size {kept}, got {seen}; "
            "its operator has to find its state again before it can be trusted"
        )

    def _verified(self, checkpoint: Checkpoint, token: bytes) -> Anchored:
        return Anchored(checkpoint=checkpoint, token=token, at=self._time(checkpoint))

    def _time(self, checkpoint: Checkpoint) -> dt.datetime:
        """Check the cosignatures of this witness, and give the moment of the first.

        Raises:
            IntegrityFinding: if there is none, or one is not good.
        """
        lines = [line for line in checkpoint.signatures if self.verifier.signs(line)]
        times = [self.verifier.check(checkpoint.text, line) for line in lines]
        moments = [time for time in times if time is not None]
        if not moments:
            raise IntegrityFinding(
                f"the checkpoint of {checkpoint.origin!r} at size {checkpoint.size} has no cosignature "
                f"by {self.verifier}"
            )
        try:
            return dt.datetime.fromtimestamp(min(moments), dt.UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise IntegrityFinding(f"the cosignature by {self.verifier} has the time {min(moments)}") from error


def _path(old: int, checkpoint: Checkpoint, prove: Prove | None) -> Sequence[Digest] | None:
    if old in (0, checkpoint.size):
        return ()
    return None if prove is None else prove(old)


def _witness_key(path: Path) -> Verifier:
    try:
        verifier = Verifier.load(path)
    except (UnusableKey, MalformedProof) as error:
        raise ConfigurationError(f"the witness's verifier key is not good: {error}") from error
    if verifier.type != COSIGNATURE:
        raise ConfigurationError(
            f"{path} holds {verifier}, which is a log's key: a witness's has the type 0x04, as "
            "sa-audit keygen --witness writes it"
        )
    return verifier
