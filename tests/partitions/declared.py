"""The models where the command line finds them."""

from __future__ import annotations

from .models import ledger

Base = ledger(testing=True)
