"""The context: merging, carrying, checking."""

from __future__ import annotations

import copy
import enum
import pickle
import threading
import timeit
from typing import Any

import pytest

from sa_audit.capture.context import Context, context, current_context, require
from sa_audit.errors import ActorRequired, AuditError, ConfigurationError, ReasonRequired


def actor() -> str | None:
    """Give the actor that holds here."""
    return current_context().actor


def test_there_is_an_empty_context_outside() -> None:
    """With no context entered, everything is None, and extra is empty."""
    assert current_context() == Context()
    assert current_context().to_dict() == {}
    assert current_context().json is None


def test_holds_inside_and_ends() -> None:
    """A context holds inside its block, and is gone after it."""
    scope = context(actor="alice", reason="refund #42", request_id="r-9", remote_addr="203.0.113.7", branch="Oslo")
    with scope as given:
        assert given is current_context()
        assert current_context().to_dict() == {
            "actor": "alice",
            "reason": "refund #42",
            "request_id": "r-9",
            "remote_addr": "203.0.113.7",
            "branch": "Oslo",
        }
        assert current_context().json == '{"branch":"Oslo"}'
    assert actor() is None


def test_ends_when_the_block_fails() -> None:
    """An exception leaves no context behind, and passes through."""
    with pytest.raises(KeyError), context(actor="alice"):
        raise KeyError("x")
    assert actor() is None


def test_nested_contexts_merge_and_the_inner_wins() -> None:
    """Known fields and extra keys merge, one by one; the outer context comes back after the inner."""
    with context(actor="alice", on_behalf_of="bob", branch="Oslo", desk=1) as outer:
        with context(actor="carol", reason="audit", desk=2) as inner:
            assert inner == Context(
                actor="carol", on_behalf_of="bob", reason="audit", extra={"branch": "Oslo", "desk": 2}
            )
        assert current_context() is outer


def test_none_takes_a_known_field_away() -> None:
    """A known field given as None is missing inside, and not inherited."""
    with context(actor="alice", reason="x"), context(reason=None):
        assert current_context() == Context(actor="alice")


def test_none_is_a_value_of_an_extra_key() -> None:
    """An extra key given as None is JSON null."""
    with context(branch="Oslo"), context(branch=None):
        assert current_context().json == '{"branch":null}'


def test_the_object_is_stable_while_nothing_changes() -> None:
    """The capture code may compare by identity: an inner context that says nothing new is the outer one."""
    with context(actor="alice", tags=["a"]) as outer:
        assert current_context() is current_context()
        with context(actor="alice", tags=["a"]) as inner:
            assert inner is outer
        with context() as empty:
            assert empty is outer


def test_a_scope_is_re_entrant() -> None:
    """One scope can be entered again inside itself and after itself."""
    scope = context(actor="alice")
    with scope, context(actor="bob"), scope:
        assert actor() == "alice"
    with scope:
        assert actor() == "alice"
    assert actor() is None


def test_leaving_out_of_order_takes_only_its_own_fields_away() -> None:
    """Scopes left crosswise neither leak nor take another's fields away."""
    first, second = context(actor="alice", reason="first"), context(actor="bob", desk=1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current_context() == Context(actor="bob", extra={"desk": 1})
    second.__exit__(None, None, None)
    assert current_context() == Context()


def test_leaving_what_was_entered_elsewhere_raises() -> None:
    """A scope entered in one thread and left in another did not hold, and says so."""
    scope = context(actor="alice")
    thread = threading.Thread(target=scope.__enter__)
    thread.start()
    thread.join()
    with pytest.raises(AuditError, match="another thread or task"):
        scope.__exit__(None, None, None)
    assert actor() is None


class TestCarrying:
    """The context as a dict and as a pickle, for task queues."""

    full = Context(
        actor="alice",
        on_behalf_of="bob",
        reason="r",
        request_id="q",
        remote_addr="::1",
        extra={"n": 1, "x": 1.5, "deep": {"list": [1, [True, None]], "text": "Ærø"}},
    )

    def test_round_trip(self) -> None:
        """from_dict gives back what to_dict took, also for nothing at all."""
        for given in (self.full, Context(), Context(actor="a"), Context(extra={"k": None})):
            assert Context.from_dict(given.to_dict()) == given

    def test_dict_is_plain(self) -> None:
        """The dict holds plain dicts and lists, so that any JSON encoder takes it."""
        payload = self.full.to_dict()
        assert type(payload["deep"]) is dict
        assert type(payload["deep"]["list"]) is list

    def test_dict_is_a_copy(self) -> None:
        """A change of the dict doesn't reach the context."""
        self.full.to_dict()["deep"]["list"].append(2)
        assert self.full.to_dict()["deep"]["list"] == [1, [True, None]]

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickles(self, protocol: int) -> None:
        """A context can be sent to another process."""
        assert pickle.loads(pickle.dumps(self.full, protocol)) == self.full
        assert copy.deepcopy(self.full) == self.full

    def test_entered_whole(self) -> None:
        """A whole context can be entered, and keywords stand above it."""
        with context(self.full):
            assert current_context() == self.full
        with context(**self.full.to_dict()):
            assert current_context() == self.full
        with context(self.full, actor="worker", n=2):
            assert (actor(), current_context().extra["n"]) == ("worker", 2)

    def test_what_a_whole_context_leaves_out_stays(self) -> None:
        """A whole context takes nothing away from the outer one."""
        with context(actor="worker", reason="queue"), context(Context(reason="task")):
            assert current_context() == Context(actor="worker", reason="task")

    def test_wrong_payload(self) -> None:
        """What is no mapping, and what is no Context, is named."""
        with pytest.raises(ConfigurationError, match=r"Context\.from_dict\('alice'\)"):
            Context.from_dict("alice")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="give a Context, or keywords"):
            context({"actor": "alice"})  # type: ignore[arg-type]

    def test_unchangeable(self) -> None:
        """Neither the context nor what is in it can be changed, nor through what was given."""
        given: dict[str, Any] = {"deep": {"list": [1]}}
        made = Context(extra=given)
        given["deep"]["list"].append(2)
        assert made.json == '{"deep":{"list":[1]}}'
        with pytest.raises(AttributeError):
            made.actor = "x"  # type: ignore[misc]
        with pytest.raises(TypeError):
            made.extra["k"] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            made.extra["deep"]["k"] = 1  # type: ignore[index]

    def test_hash_and_equality_are_by_value(self) -> None:
        """Equal contexts hash equally; the order of extra keys doesn't matter, the type of a value does."""
        assert Context(extra={"a": 1, "b": 2}) == Context(extra={"b": 2, "a": 1})
        assert hash(Context(extra={"a": 1, "b": 2})) == hash(Context(extra={"b": 2, "a": 1}))
        assert Context(extra={"a": 1}) != Context(extra={"a": True})
        assert Context(actor="a") != Context(actor="b")


class TestChecking:
    """What can't be stored is refused when it is said, not when it is written."""

    @pytest.mark.parametrize("name", ["actor", "on_behalf_of", "reason", "request_id", "remote_addr"])
    @pytest.mark.parametrize("value", [42, b"alice", object, ["alice"], True])
    def test_known_fields_are_strings(self, name: str, value: Any) -> None:
        """Anything but a string is refused by name, value and type."""
        with pytest.raises(ConfigurationError) as caught:
            context(**{name: value})
        assert f"context({name}={value!r}) is of type {type(value).__name__}" in str(caught.value)
        assert "give a string such as its id" in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "where"),
        [
            (float("nan"), "k=nan"),
            (float("-inf"), "k=-inf"),
            (object(), "k=<object"),
            ({1, 2}, "k={1, 2}"),
            (b"x", "k=b'x'"),
            ({"a": [0, {"b": 1j}]}, "k.a[1].b=1j"),
            ({1: 2}, "context(k) has the key 1"),
            ({"a": {None: 2}}, "context(k.a) has the key None"),
        ],
    )
    def test_extra_values_are_json(self, value: Any, where: str) -> None:
        """What is not JSON is named by its path and value."""
        with pytest.raises(ConfigurationError) as caught:
            context(k=value)
        assert where in str(caught.value)

    def test_a_ring_is_refused(self) -> None:
        """A list that holds itself is an error, not an endless loop."""
        ring: list[Any] = []
        ring.append(ring)
        with pytest.raises(ConfigurationError, match="nested more than 50 deep"):
            context(k=ring)

    def test_an_endless_integer_is_refused(self) -> None:
        """An integer that Python doesn't write is an error of ours."""
        with pytest.raises(ConfigurationError, match="can't be written as JSON"):
            context(k=10**5000)

    @pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
    def test_text_that_no_database_stores(self, text: str) -> None:
        """NUL and lone surrogates are refused in fields, values and keys."""
        for given in ({"actor": text}, {"k": text}, {"k": {text: 1}}, {text: 1}):
            with pytest.raises(ConfigurationError):
                context(**given)

    def test_long_values_are_shortened_in_messages(self) -> None:
        """A message stays readable whatever was given."""
        with pytest.raises(ConfigurationError) as caught:
            context(actor=["x" * 500] * 500)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 1000

    def test_known_names_in_extra(self) -> None:
        """A known field can't hide in extra."""
        with pytest.raises(ConfigurationError, match="give it as the field actor"):
            Context(extra={"actor": "x"})
        with pytest.raises(ConfigurationError, match="give a mapping"):
            Context(extra=5)  # type: ignore[arg-type]

    def test_subclasses_become_plain(self) -> None:
        """Enums of strings and integers are recorded as their plain values."""

        class Role(str, enum.Enum):  # noqa: UP042 - its str() is not its value
            TELLER = "teller"

        class Level(enum.IntEnum):
            HIGH = 3

        with context(actor=Role.TELLER, level=Level.HIGH):
            assert type(actor()) is str
            assert actor() == "teller"
            assert current_context().json == '{"level":3}'


class TestRequire:
    """The check that the configuration asks for."""

    @pytest.mark.parametrize("missing", [None, "", "  \t"])
    def test_missing(self, missing: str | None) -> None:
        """None, the empty string and blanks count as missing."""
        with pytest.raises(ActorRequired, match="require_actor"):
            require(Context(actor=missing), actor=True, reason=False)
        with pytest.raises(ReasonRequired, match="require_reason"):
            require(Context(actor="a", reason=missing), actor=True, reason=True)

    def test_given_or_not_asked_for(self) -> None:
        """Nothing is raised for what is given, nor for what nobody asks for."""
        require(Context(actor="a", reason="r"), actor=True, reason=True)
        require(Context(), actor=False, reason=False)


def test_reading_is_fast() -> None:
    """current_context() costs far less than a microsecond; the bound is loose for busy machines."""
    with context(actor="alice", branch="Oslo"):
        best = min(timeit.repeat(current_context, number=20_000, repeat=5)) / 20_000
    assert best < 1.5e-6
