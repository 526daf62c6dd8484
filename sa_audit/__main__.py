"""``python -m sa_audit``: the command line."""

from __future__ import annotations

from .cli import main

main()
