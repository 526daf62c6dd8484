"""HTTP as anchors need it: one question, one answer, within a time, of a length; no redirects.

Proxies and certificate authorities come from the environment, as everywhere in Python (``https_proxy``,
``SSL_CERT_FILE``).  Imports only errors.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from ..errors import AnchorUnavailable

MAX_ANSWER: Final = 1024 * 1024
CHUNK: Final = 64 * 1024
AGENT: Final = "sa-audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered: the status, the type without parameters in lower case, and the body."""

    status: int
    type: str
    body: bytes

    def said(self) -> str:
        """Give the beginning of the body as one line of text, for messages."""
        text = " ".join(self.body[:200].decode("utf-8", errors="replace").split())
        return "".join(char if char.isprintable() else "\ufffd" for char in text)


def post(url: str, body: bytes, content_type: str, *, timeout: float) -> Answer:
    """Send a body, and give the answer, of whatever status.

    Args:
        url: ``http://`` or ``https://``.
        body: what is sent.
        content_type: its type.
        timeout: seconds in all.

    Raises:
        AnchorUnavailable: if there is no whole answer in time.
    """
    headers = {"Content-Type": content_type, "User-Agent": AGENT}
    return _ask(urllib.request.Request(url, data=body, headers=headers, method="POST"), timeout)


def get(url: str, *, timeout: float) -> Answer:
    """Ask for what stands at a URL, and give the answer, of whatever status; see :func:`post`."""
    return _ask(urllib.request.Request(url, headers={"User-Agent": AGENT}, method="GET"), timeout)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the answer: it would turn a POST into a GET, and lead elsewhere."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        """Refuse every redirect."""


def _ask(request: urllib.request.Request, timeout: float) -> Answer:
    end = time.monotonic() + timeout
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        try:
            response = opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error  # an answer with another status than 200
        with response:
            return Answer(
                status=response.status,
                type=response.headers.get_content_type() if response.headers.get("Content-Type") else "",
                body=_body(response, request.full_url, end),
            )
    except TimeoutError as error:
        raise AnchorUnavailable(f"{request.full_url} gave no answer within {timeout:g} seconds") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise AnchorUnavailable(f"{request.full_url} gave no answer within {timeout:g} seconds") from error
        raise AnchorUnavailable(f"{request.full_url} can't be reached: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        raise AnchorUnavailable(f"{request.full_url} gave no whole answer: {said}") from error


def _body(response: Any, url: str, end: float) -> bytes:
    """Read the body in pieces, so that a server that trickles does not keep us for ever."""
    parts: list[bytes] = []
    length = 0
    while part := response.read1(CHUNK):
        parts.append(part)
        length += len(part)
        if length > MAX_ANSWER:
            raise AnchorUnavailable(f"{url} answered with more than {MAX_ANSWER} bytes")
        if time.monotonic() > end:
            raise TimeoutError
    expected = response.headers.get("Content-Length")
    if expected is not None and expected.isdecimal() and length != int(expected):
        raise AnchorUnavailable(f"{url} answered with {length} of {expected} bytes")
    return b"".join(parts)
