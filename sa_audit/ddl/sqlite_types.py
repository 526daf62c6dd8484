"""SQLite: the form of a stored value in a before-object.  Imports nothing."""

from __future__ import annotations


def json_form(value: str) -> str:
    """Give the SQL for a stored value as JSON: exact numbers, text, a blob as an array of one hex string.

    SQLite's own text of a real is not exact far from 1, so there it is an array of two integers, m and e: m * 2 ** e.
    """
    return (
        f"CASE typeof({value}) WHEN 'null' THEN 'null' WHEN 'integer' THEN {value} "
        f"WHEN 'real' THEN CASE WHEN abs({value}) = 9e999 THEN iif({value} > 0, '1e999', '-1e999') "
        f"WHEN {value} = 0 OR abs({value}) BETWEEN 1e-90 AND 1e90 THEN printf('%!.17g', {value}) "
        f"ELSE {_mantissa_and_exponent(value)} END "
        f"WHEN 'blob' THEN '[\"' || hex({value}) || '\"]' ELSE json_quote({value}) END"
    )


def _mantissa_and_exponent(value: str) -> str:
    large = "abs(m) >= 9007199254740992.0"
    return (
        f"(WITH RECURSIVE s(m, e) AS (SELECT {value}, 0 UNION ALL "
        f"SELECT iif({large}, m / 2.0, m * 2.0), iif({large}, e + 1, e - 1) "
        f"FROM s WHERE {large} OR m <> CAST(m AS INTEGER)) "
        "SELECT '[' || CAST(m AS INTEGER) || ',' || e || ']' FROM s ORDER BY abs(e) DESC LIMIT 1)"
    )
