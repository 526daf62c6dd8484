"""The read-only part of the compiler of past sessions: whatever would write or lock, and text that could name a table.

Text can't be seen through: the present of a table would come in by it, so it is refused if it is a statement, stands
for a table, or has a word in it that begins a query.  Follows :mod:`sqlalchemy.sql.compiler`; touches no connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from ..errors import NotAudited, ReadOnlyPast
from ..model import Marker
from .names import Former


@dataclass(frozen=True, slots=True)
class Held:
    """What the history holds of a column in the place of its values.

    Args:
        name: what it is, for messages.
        type: its type.
    """

    name: str
    type: TypeEngine[Any]

    def __str__(self) -> str:
        return self.name


Unusable = Marker | Held | Former
"""Why a column of the past may only be shown: no value of it is known, or one in another form or of another type."""

_UNSEEN: Final = re.compile(
    r"\b(select|from|table|into|insert|update|delete|merge|truncate|share|lock|call|copy|execute)\b|;", re.IGNORECASE
)


class ReadOnlyCompiler(SQLCompiler):
    """Compiles SELECT only, of expressions that can be seen through; mixed into a dialect's own compiler."""

    _in_state = False
    """Whether what is being rendered is the library's own state query."""

    @property
    def _live(self) -> Any:
        """The dialect's own compiler, which SQLAlchemy leaves untyped."""
        return super()

    def visit_insert(self, insert_stmt: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse to write."""
        _refuse_write("INSERT")

    def visit_update(self, update_stmt: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse to write."""
        _refuse_write("UPDATE")

    def visit_delete(self, delete_stmt: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse to write."""
        _refuse_write("DELETE")

    def visit_sequence(self, sequence: Any, **_kw: Any) -> NoReturn:
        """Refuse to move a sequence."""
        _refuse_write(f"the next value of sequence {sequence.name}")

    def visit_next_value_func(self, next_value: Any, **_kw: Any) -> NoReturn:
        """Refuse to move a sequence."""
        _refuse_write(f"the next value of sequence {next_value.sequence.name}")

    def for_update_clause(self, select: Any, **_kw: Any) -> NoReturn:
        """Refuse to lock."""
        raise ReadOnlyPast("FOR UPDATE in a past session would lock rows of the present: leave with_for_update() out")

    def visit_textual_select(self, taf: Any, *_args: Any, **_kw: Any) -> NoReturn:
        """Refuse text whose tables can't be seen."""
        _refuse_text(str(taf.element))

    def visit_textclause(self, textclause: Any, add_to_result_map: Any = None, **kw: Any) -> Any:
        """Refuse text that is a statement, stands for a table, or could name one."""
        if not self._in_state and (not self.stack or kw.get("asfrom") or _UNSEEN.search(textclause.text)):
            _refuse_text(textclause.text)
        return self._live.visit_textclause(textclause, add_to_result_map=add_to_result_map, **kw)

    def visit_tstring(self, tstring: Any, add_to_result_map: Any = None, **kw: Any) -> Any:
        """Refuse a template string that is a statement or stands for a table."""
        if not self.stack or kw.get("asfrom"):
            _refuse_text("".join(getattr(part, "text", "...") for part in tstring.parts))
        return self._live.visit_tstring(tstring, add_to_result_map=add_to_result_map, **kw)

    def visit_tstring_text(self, element: Any, **kw: Any) -> Any:
        """Refuse a part of a template string that could name a table."""
        self._check_text(str(getattr(element, "text", element)))
        return self._live.visit_tstring_text(element, **kw)

    def escape_literal_column(self, text: str) -> Any:
        """Refuse a literal column that could name a table."""
        if not self._in_state:
            self._check_text(text)
        return self._live.escape_literal_column(text)

    def visit_custom_op_binary(self, element: Any, operator: Any, **kw: Any) -> Any:
        """Refuse an operator that could name a table."""
        self._check_text(operator.opstring)
        return self._live.visit_custom_op_binary(element, operator, **kw)

    def get_from_hint_text(self, table: Any, text: str | None) -> Any:
        """Refuse a hint that could name a table."""
        self._check_text(text or "")
        return self._live.get_from_hint_text(table, text)

    def get_statement_hint_text(self, hint_texts: Iterable[str]) -> Any:
        """Refuse a hint that could name a table."""
        for text in hint_texts:
            self._check_text(text)
        return self._live.get_statement_hint_text(hint_texts)

    def _check_text(self, text: str) -> None:
        if _UNSEEN.search(text):
            _refuse_text(text)


def _refuse_write(what: str) -> NoReturn:
    raise ReadOnlyPast(f"{what} in a past session: the past can't be written; use sa_audit.restore() or revert()")


def _refuse_text(text: str) -> NoReturn:
    raise ReadOnlyPast(
        f"text in a past session can't be read for the tables it names: {text!r}; write it as SQLAlchemy expressions"
    )


def refuse_use(column: Any, marker: Unusable) -> NoReturn:
    """Refuse a column that may only be shown.

    Raises:
        NotAudited: always.
    """
    raise NotAudited(
        f"{column} can't be used in the past, since {reason(marker)}: "
        "such a column may only stand in a plain list of columns"
    )


def reason(marker: Unusable) -> str:
    """Say why a column may only be shown."""
    if isinstance(marker, Former):
        return f"at that moment its values were of another type ({marker.type!r})"
    return f"its values are not in the history ({marker})"


__all__ = ["Held", "ReadOnlyCompiler", "Unusable", "reason", "refuse_use"]
