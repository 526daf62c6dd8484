"""The models where the command line finds them."""

from __future__ import annotations

from .models import clinic

Base = clinic()
