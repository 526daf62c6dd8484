from __future__ import annotations
from .window import parse_bound

def visibility(source, subject, when):
    bound = parse_bound(when, "when", end=True)
    return lambda history: history.c.audit_at <= bound
