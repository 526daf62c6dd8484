"""The RFC 3161 anchor: a time-stamping authority signs the digest of the checkpoint, and when it was.

The authority keeps nothing, so checkpoint and reply are kept in a directory.  ``openssl ts -verify`` reads them as they
stand.  Needs the extra ``timestamp``.  Imports only proof, errors and that.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    PKIStatus,
    TimeStampRequest,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from ..errors import AnchorUnavailable, ConfigurationError, IntegrityFinding, MalformedProof
from ..proof import Checkpoint
from .anchor import Anchored, Prove, require_continued
from .http import post
from .kept import Kept
from .uri import TIMEOUT, with_options

QUERY: Final = "application/timestamp-query"
REPLY: Final = "application/timestamp-reply"
ENDING: Final = ".tsr"


class TimestampAnchor:
    """A time-stamping authority (RFC 3161).

    Args:
        url: where it takes requests, ``http://`` or ``https://``: the reply is signed.
        ca: a file of PEM certificates: the authority's root, and what stands between, if the replies lack it.
        keep: the directory for checkpoints and replies; beside ``ca``, with ``.kept`` behind its name, if not given.
        timeout: seconds for an answer.

    Raises:
        ConfigurationError: if ``ca`` holds no certificates.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: str | os.PathLike[str],
        keep: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.url = url
        self.ca = Path(ca)
        self._timeout = timeout
        self._certificates = _certificates(self.ca)
        self._kept = Kept(keep if keep is not None else f"{self.ca}.kept", ENDING)

    def __repr__(self) -> str:
        return f"<TimestampAnchor {self.url}>"

    @property
    def uri(self) -> str:
        """``rfc3161+URL?ca=FILE&keep=DIR``."""
        return with_options(f"rfc3161+{self.url}", ca=self.ca, keep=self._kept.path)

    def put(self, checkpoint: Checkpoint, *, prove: Prove | None = None) -> Anchored:
        """Have a signed checkpoint time-stamped, and keep the reply; see :meth:`.anchor.Anchor.put`."""
        note = checkpoint.format().encode()
        with self._kept.locked():
            last = self._kept.last()
            if last is not None:
                require_continued(last[0], checkpoint)
                if last[0].text == checkpoint.text:
                    return self._verified(*last)
            request = _request(note)
            reply = self._ask(request)
            try:
                at = self._check(note, reply, request.nonce)
            except (IntegrityFinding, MalformedProof) as error:
                raise AnchorUnavailable(f"{self.url} gave a reply that is not good: {error}") from error
            self._kept.add(checkpoint, note, reply)
        return Anchored(checkpoint=checkpoint, token=reply, at=at)

    def read(self) -> Iterator[Anchored]:
        """Yield what is kept, oldest first, each reply verified; see :meth:`.anchor.Anchor.read`."""
        last = None
        for checkpoint, reply in self._kept.read():
            require_continued(last, checkpoint)
            yield self._verified(checkpoint, reply)
            last = checkpoint

    def latest(self) -> Anchored | None:
        """Give what was kept last, with its reply verified, or None."""
        last = self._kept.last()
        return None if last is None else self._verified(*last)

    def verify(self, anchored: Anchored) -> dt.datetime:
        """Refuse a reply that is not one by this authority over this checkpoint; see :meth:`.anchor.Anchor.verify`."""
        return self._check(anchored.checkpoint.format().encode(), anchored.token, None)

    def _verified(self, checkpoint: Checkpoint, reply: bytes) -> Anchored:
        at = self._check(checkpoint.format().encode(), reply, None)
        return Anchored(checkpoint=checkpoint, token=reply, at=at)

    def _ask(self, request: TimeStampRequest) -> bytes:
        answer = post(self.url, request.as_bytes(), QUERY, timeout=self._timeout)
        if answer.status != 200 or answer.type != REPLY:
            raise AnchorUnavailable(
                f"{self.url} answered with {answer.status} {answer.type or 'of no type'}, where 200 {REPLY} has to "
                f"stand: {answer.said()}"
            )
        response = _decode(answer.body, AnchorUnavailable)
        if response.status not in (PKIStatus.GRANTED, PKIStatus.GRANTED_WITH_MODS):
            said = "; ".join(response.status_string) or "it gives no reason"
            raise AnchorUnavailable(f"{self.url} refused to stamp, with the status {response.status}: {said}")
        return answer.body

    def _check(self, note: bytes, reply: bytes, nonce: int | None) -> dt.datetime:
        """Check a reply over a note, and give the moment that it says."""
        response = _decode(reply, MalformedProof)
        builder = VerifierBuilder(nonce=nonce)
        roots = [each for each in self._certificates if each.issuer == each.subject] or self._certificates
        for certificate in self._certificates:
            if certificate in roots:
                builder = builder.add_root_certificate(certificate)
            else:
                builder = builder.add_intermediate_certificate(certificate)
        try:
            builder.build().verify_message(response, note)
            return response.tst_info.gen_time.astimezone(dt.UTC)
        except (VerificationError, ValueError) as error:
            raise IntegrityFinding(
                f"the reply of the authority is not one by {self.ca} over the checkpoint: {error}"
            ) from error


def _request(note: bytes) -> TimeStampRequest:
    builder = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256)
    return builder.nonce(nonce=True).cert_request(cert_request=True).build()


def _decode(reply: bytes, error_class: type[AnchorUnavailable | MalformedProof]) -> TimeStampResponse:
    try:
        return decode_timestamp_response(reply)
    except ValueError as error:
        raise error_class(f"what was given is no reply of a time-stamping authority (RFC 3161): {error}") from error


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the certificates {path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} does not hold certificates in PEM: {error}") from error
    return list(dict.fromkeys(certificates))
