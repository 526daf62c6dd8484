"""What a command gives: one result object, which knows its JSON and its form for people.

The JSON shapes are a contract; each class says its own.  Values are encoded as :mod:`.encoding` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..model import Marker
from ..query.change import Access, Change, Event, Page, TransactionInfo
from .encoding import moment, printable, to_json, to_text

SHORT = 60


class Result(Protocol):
    """What a command gives."""

    def to_json(self) -> Any:
        """Give it as JSON values."""

    def render(self) -> RenderableType:
        """Give it for people."""


@dataclass(frozen=True, slots=True)
class LogResult:
    """A page of the trail.  JSON: ``{"entries": [entry, ...], "next": cursor or null, "withheld": bool}``."""

    page: Page

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {
            "entries": [change_json(change) for change in self.page.entries],
            "next": self.page.next,
            "withheld": self.page.withheld,
        }

    def render(self) -> RenderableType:
        """Give it for people."""
        notes = []
        if not self.page.entries:
            notes.append("no entry")
        if self.page.withheld:
            notes.append("newer entries are held back until the writers that began before them have ended")
        if self.page.next:
            notes.append(f"more: --after {self.page.next}")
        table = changes_table(self.page.entries, with_entity=True, limit=SHORT)
        return _group(table if self.page.entries else None, *notes)


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """The history of one row.  JSON: ``[change, ...]``, oldest first."""

    title: str
    changes: Sequence[Change]

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return [change_json(change) for change in self.changes]

    def render(self) -> RenderableType:
        """Give it for people."""
        count = len(self.changes)
        if not count:
            return plain(f"{self.title}: no change is recorded")
        title = plain(f"{self.title}: {count} change{'s' if count > 1 else ''}")
        return _group(title, changes_table(self.changes, with_entity=False))


@dataclass(frozen=True, slots=True)
class ReadsResult:
    """Who looked at one row.  JSON: ``[read, ...]``, oldest first."""

    title: str
    reads: Sequence[Access]

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return [change_json(read) for read in self.reads]

    def render(self) -> RenderableType:
        """Give it for people."""
        count = len(self.reads)
        if not count:
            return plain(f"{self.title}: no read is recorded")
        title = plain(f"{self.title}: {count} read{'s' if count > 1 else ''}")
        return _group(title, changes_table(self.reads, with_entity=False))


@dataclass(frozen=True, slots=True)
class DiffResult:
    """What differs between two moments.  JSON: ``{attribute: {"then": value, "now": value}}``."""

    title: str
    earlier: str
    later: str
    diff: Mapping[str, tuple[Any, Any]]

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {name: {"then": to_json(then), "now": to_json(now)} for name, (then, now) in self.diff.items()}

    def render(self) -> RenderableType:
        """Give it for people."""
        if not self.diff:
            return plain(f"{self.title}: nothing differs between {self.earlier} and {self.later}")
        table = grid("attribute", self.earlier, self.later)
        for name, (then, now) in self.diff.items():
            table.add_row(plain(name), plain(to_text(then)), plain(to_text(now)))
        return _group(plain(self.title), table)


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row at one moment.  JSON: ``{attribute: value}``, or ``null`` if there was none."""

    title: str
    row: Mapping[str, Any] | None

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return to_json(self.row)

    def render(self) -> RenderableType:
        """Give it for people."""
        if self.row is None:
            return plain(f"{self.title}: there was no such row")
        table = grid("attribute", "value")
        for name, value in self.row.items():
            table.add_row(plain(name), plain(to_text(value)))
        return _group(plain(self.title), table)


@dataclass(frozen=True, slots=True)
class RowsResult:
    """The rows of a model at one moment.  JSON: ``{"rows": [{attribute: value}, ...], "more": bool}``."""

    title: str
    names: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    more: bool

    def to_json(self) -> Any:
        """Give it as JSON values."""
        return {"rows": [to_json(row) for row in self.rows], "more": self.more}

    def render(self) -> RenderableType:
        """Give it for people."""
        count = f"{len(self.rows)} row{'' if len(self.rows) == 1 else 's'}"
        title = (
            f"{self.title}: the first {count}, and there are more (--limit)" if self.more else f"{self.title}: {count}"
        )
        if not self.rows:
            return plain(title)
        table = grid(*self.names)
        for row in self.rows:
            table.add_row(*(plain(to_text(row[name], SHORT)) if name in row else "" for name in self.names))
        return _group(plain(title), table)


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did.  JSON: ``{"restored": bool, "change": change or null, "row": {attribute: value}}``.

    ``restored`` is false if the row was so already, and nothing was written.
    """

    title: str
    row: Mapping[str, Any] | None
    change: Change | None

    def to_json(self) -> Any:
        """Give it as JSON values."""
        change = None if self.change is None else change_json(self.change)
        return {"restored": change is not None, "change": change, "row": to_json(self.row)}

    def render(self) -> RenderableType:
        """Give it for people."""
        if self.change is None:
            return plain(f"{self.title}: it is so already, nothing was written")
        return _group(plain(self.title), changes_table([self.change], with_entity=False))


# -- parts ----------------------------------------------------------------------------


def change_json(change: Change | Event | Access) -> dict[str, Any]:
    """Give a change, event or read as JSON values.

    ``{"audit_id", "entity", "table", "identity": [...], "operation", "recorded_at", "transaction": {"id",
    "recorded_at", "actor", ...}}`` and for a change ``{"diff": {attribute: {"before", "after"}}, "state": {attribute:
    value}}``, for an event ``{"action", "data", "durable"}``, for a read ``{"rows": [[...]], "columns": [...],
    "statement", "criteria", "identities", "row_count"}``.
    """
    return {
        "audit_id": change.audit_id,
        "entity": change.entity,
        "table": change.table,
        "identity": to_json(change.identity),
        "operation": change.operation,
        "recorded_at": to_json(change.recorded_at),
        **_details(change),
        "transaction": {
            field.name: to_json(getattr(change.transaction, field.name)) for field in fields(TransactionInfo)
        },
    }


def _details(entry: Change | Event | Access) -> dict[str, Any]:
    if isinstance(entry, Change):
        pairs = {n: {"before": to_json(before), "after": to_json(after)} for n, (before, after) in entry.diff.items()}
        return {"diff": pairs, "state": to_json(entry.state)}
    own: tuple[str, ...] = ("action", "data", "durable")
    if isinstance(entry, Access):
        own = ("rows", "columns", "statement", "criteria", "identities", "row_count")
    return {name: to_json(getattr(entry, name)) for name in own}


def changes_table(changes: Sequence[Change | Event | Access], *, with_entity: bool, limit: int | None = None) -> Table:
    """Give changes as a table: when, who, (which row,) what and why."""
    table = grid("when (UTC)", "who", *(["row"] if with_entity else []), "what")
    for change in changes:
        row = [plain(f"{change.entity or ''} {identity_text(change.identity)}".strip())] if with_entity else []
        table.add_row(plain(moment(change.recorded_at)), who(change.transaction), *row, what(change, limit))
    return table


def who(info: TransactionInfo) -> Text:
    """Give the actor, and for whom it acted."""
    text = plain(printable(info.actor), style="cyan") if info.actor else Text("nobody named", style="dim")
    if info.on_behalf_of:
        text.append(f"\nfor {printable(str(info.on_behalf_of))}")
    return text


STYLES = {
    "insert": "green",
    "update": "yellow",
    "delete": "red",
    "baseline": "blue",
    "truncate": "red",
    "event": "magenta",
    "read": "cyan",
}


def what(change: Change | Event | Access, limit: int | None = None) -> Text:
    """Give what a change did, one attribute a line, or what an event or read was, and why."""
    title = printable(change.action) if isinstance(change, Event) else change.operation
    text = Text(title, style=STYLES.get(change.operation, ""))
    if change.reason:
        text.append(f" ({printable(str(change.reason))})", style="dim")
    if isinstance(change, Event):
        data = {"data": change.data} if isinstance(change.data, Marker) else change.data
        for name, value in (data or {}).items():
            text.append(f"\n{printable(name)} ", style="bold not dim")
            text.append(to_text(value, limit), style="default")
        return text
    if isinstance(change, Access):
        return text.append(_read(change), style="default")
    for name, (before, after) in change.diff.items():
        text.append(f"\n{printable(name)} ", style="bold not dim")
        text.append(_values(change.operation, before, after, limit), style="default")
    return text


def _read(access: Access) -> str:
    """Give how much a statement read, and of what."""
    count = "rows as they were fetched" if access.row_count is None else f"{access.row_count} row(s)"
    columns = f" of {', '.join(map(printable, access.columns))}" if access.columns else ""
    return f"\n{count}{columns}, by {access.statement[:19]}"


def _values(operation: str, before: Any, after: Any, limit: int | None) -> str:
    if operation in ("insert", "baseline"):
        return to_text(after, limit)
    if operation == "delete":
        return to_text(before, limit)
    if before is after and isinstance(after, Marker):
        return f"{to_text(after)}, changed"
    return f"{to_text(before, limit)} → {to_text(after, limit)}"


def identity_text(identity: Sequence[Any]) -> str:
    """Give a key as it is typed on the command line."""
    return ",".join(printable(str(to_json(value))) for value in identity)


def plain(text: str, style: str = "") -> Text:
    """Give text that is shown as it is, with nothing in it taken for markup."""
    return Text(text, style=style)


def grid(*headings: str) -> Table:
    """Give an empty table with these headings."""
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for heading in headings:
        table.add_column(plain(heading), overflow="fold", no_wrap=heading.startswith("when"))
    return table


def _group(*parts: RenderableType | None) -> Group:
    shown = (plain(part) if isinstance(part, str) else part for part in parts if part is not None)
    return Group(*shown)
