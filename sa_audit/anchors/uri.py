"""The URIs of anchors: a scheme, a place, and options behind a question mark.  Imports only errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from ..errors import ConfigurationError

TIMEOUT: Final = 10.0
"""Seconds that an anchor has for an answer, if its URI says nothing else."""
MAX_TIMEOUT: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a URI says: the URI itself, the place without the options, and the options."""

    uri: str
    url: str
    options: Mapping[str, str]

    def path(self, name: str) -> Path:
        """Give an option that names a file and has to be there.

        Raises:
            ConfigurationError: if it is not.
        """
        if name not in self.options:
            raise ConfigurationError(f"the anchor {self.uri!r} lacks {name}=FILE behind a question mark")
        return Path(self.options[name])

    def number(self, name: str, default: float, most: float) -> float:
        """Give an option that is a number above 0.

        Raises:
            ConfigurationError: if it is none, or above the most.
        """
        text = self.options.get(name, str(default))
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number <= most:
            raise ConfigurationError(f"the anchor {self.uri!r} has {name}={text}: give a number from 0 to {most:g}")
        return number

    @property
    def timeout(self) -> float:
        """Seconds for an answer."""
        return self.number("timeout", TIMEOUT, MAX_TIMEOUT)


def with_options(place: str, **options: object) -> str:
    """Give a URI with options behind it, those that are None left out."""
    given = "&".join(f"{name}={quote(str(value), safe='/:')}" for name, value in options.items() if value is not None)
    return f"{place}?{given}"


def parse_uri(uri: str, prefix: str, *known: str) -> Place:
    """Read a URI whose options stand behind a question mark.

    Args:
        uri: the whole.
        prefix: what stands before the place, such as ``rfc3161+``.
        known: the options that there are.

    Raises:
        ConfigurationError: if it has no host, a password, an option that there is not, or one twice.
    """
    if "@" in uri.partition("?")[0]:
        raise ConfigurationError(
            "the URI of the anchor holds a user or a password, and URIs are printed and logged: leave them out"
        )
    try:
        parts = urlsplit(uri.removeprefix(prefix))
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        _port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"the anchor {uri!r} can't be read: {error}") from error
    if not parts.hostname or parts.fragment:
        raise ConfigurationError(f"the anchor {uri!r} names no place")
    options = dict(pairs)
    wrong = sorted(set(options) - set(known)) or [name for name, value in pairs if not value]
    if wrong or len(options) < len(pairs):
        said = f"{wrong[0]!r}, which is unknown or empty" if wrong else "an option twice"
        raise ConfigurationError(f"the anchor {uri!r} has {said}: its options are {', '.join(known)}")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return Place(uri=uri, url=url, options=options)
