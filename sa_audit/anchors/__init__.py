"""Anchors: places outside of the database that keep checkpoints, so that a rewritten log can be told from the true one.

>>> import tempfile
>>> from sa_audit import anchors
>>> anchor = anchors.open(f"file:{tempfile.mkdtemp()}/anchors")
>>> anchor.uri.startswith("file:/")
True
"""

from __future__ import annotations

from ..errors import ConfigurationError
from .anchor import Anchor, Anchored
from .file import FileAnchor

__all__ = ["Anchor", "Anchored", "FileAnchor", "open"]


def open(uri: str) -> Anchor:
    """Give the anchor that a URI names.

    Args:
        uri: ``file:PATH``.

    Raises:
        ConfigurationError: if this release has no such anchor.
    """
    scheme, separator, rest = uri.partition(":")
    if separator and scheme == "file" and rest:
        path = rest.removeprefix("//") if rest.startswith("///") else rest
        if path.startswith("//"):
            raise ConfigurationError(f"the anchor {uri!r} names a host: give file:PATH of a file that is mounted here")
        return FileAnchor(path)
    raise ConfigurationError(f"there is no anchor {uri!r} in this release: give file:PATH")
