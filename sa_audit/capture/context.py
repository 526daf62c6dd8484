"""Who changes something, and why: the context that the changes made inside it are recorded with.

Carried by :mod:`contextvars`, so that it is right under threads (a new thread starts with none), asyncio tasks (a
task starts with its creator's) and nested use.  Imports only errors and the check of the values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from json import loads
from types import TracebackType
from typing import Any, Final, TypeVar

from ..errors import ActorRequired, AuditError, ConfigurationError, ReasonRequired
from .context_value import JSON, KNOWN, NO_EXTRA, canonical, frozen_extra, known_text, shown

Function = TypeVar("Function", bound=Callable[..., Any])

_UNSET: Final[Any] = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Who and why, as the application says; what :func:`current_context` gives.

    Equal by value, hashable, picklable, and not changeable in depth: in ``extra`` an object is a read-only mapping
    and an array is a tuple.

    Args:
        actor: who makes the change.
        on_behalf_of: for whom the actor acts.
        reason: why.
        request_id: the request, job or message that the change belongs to.
        remote_addr: where the request came from.
        extra: everything else, as JSON values.

    Raises:
        ConfigurationError: for a field that is no string, or a value that is not JSON.
    """

    actor: str | None = None
    on_behalf_of: str | None = None
    reason: str | None = None
    request_id: str | None = None
    remote_addr: str | None = None
    extra: Mapping[str, JSON] = field(default_factory=lambda: NO_EXTRA, compare=False)
    json: str | None = field(init=False, repr=False, default=None)
    """``extra`` as canonical JSON text (sorted keys, no spaces), or None if it is empty."""

    def __post_init__(self) -> None:
        for name in KNOWN:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, known_text(name, value))
        if self.extra is NO_EXTRA:
            return
        extra = frozen_extra(self.extra)
        object.__setattr__(self, "extra", extra)
        object.__setattr__(self, "json", canonical(extra) if extra else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return Context.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Give the context as a flat dict of JSON values, without the fields that are None.

        Made for task queues: send it with the task, and run the task under ``context(Context.from_dict(payload))``
        or ``context(**payload)``.
        """
        known = {name: getattr(self, name) for name in KNOWN if getattr(self, name) is not None}
        return known if self.json is None else {**known, **loads(self.json)}

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> Context:
        """Make a context of what :meth:`to_dict` gave.

        Args:
            payload: known fields and extra keys side by side.

        Raises:
            ConfigurationError: if it is no mapping, or a value can't stand in a context.
        """
        if not isinstance(payload, Mapping):
            raise ConfigurationError(f"Context.from_dict({shown(payload)}): give the dict that Context.to_dict() gave")
        extra = {key: value for key, value in payload.items() if key not in KNOWN}
        return cls(**{name: payload.get(name) for name in KNOWN}, extra=extra)


class ContextScope:
    """What :func:`context` gives: a re-entrant context manager, and a decorator.

    One scope may be used any number of times, also by several threads and tasks at once.
    """

    __slots__ = ("_alone", "_fields")

    def __init__(self, fields: Mapping[str, Any], alone: Context) -> None:
        self._fields = fields
        self._alone = alone

    def __enter__(self) -> Context:
        frame = _state.get().inner(self)
        _state.set(frame)
        return frame.context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _state.set(_state.get().without(self))

    def __call__(self, function: Function) -> Function:
        """Decorate a plain, async, generator or async generator function.

        The body of a generator runs inside the context at each step; between the steps its consumer does not.

        Raises:
            ConfigurationError: if it is not a function.
        """
        if inspect.isclass(function) or not callable(function):
            raise ConfigurationError(
                f"@context(...) decorates functions, not {function!r}: put it on the methods, below @classmethod"
            )
        hold: Callable[[ContextScope, Any], Any] = _held_call
        if inspect.isasyncgenfunction(function):
            hold = _held_async_generator
        elif inspect.isgeneratorfunction(function):
            hold = _held_generator
        elif inspect.iscoroutinefunction(function):
            hold = _held_coroutine
        held: Function = hold(self, function)
        return held


def context(
    given: Context | None = None,
    /,
    *,
    actor: str | None = _UNSET,
    on_behalf_of: str | None = _UNSET,
    reason: str | None = _UNSET,
    request_id: str | None = _UNSET,
    remote_addr: str | None = _UNSET,
    **extra: Any,
) -> ContextScope:
    """Say who makes the changes inside, and why; as context manager or decorator.

    Nested contexts merge, and the inner one wins, key by key; a known field given as None is taken away.
    Inside a plain generator, use the decorator: a ``with`` around a ``yield`` holds for the consumer as well, as
    with all context variables.

    ::

        with context(actor="alice", reason="refund #42", branch="Oslo"):
            session.commit()

    Args:
        given: a whole context, such as one that came with a task; what it leaves None stays as outside.
        actor: who; a string such as the user's id.
        on_behalf_of: for whom the actor acts.
        reason: why.
        request_id: the request, job or message.
        remote_addr: where the request came from.
        extra: any other key, with a JSON value.

    Returns:
        A scope; entering it gives the merged :class:`Context`.

    Raises:
        ConfigurationError: for a known field that is no string, or a value that is not JSON.
    """
    if given is not None and not isinstance(given, Context):
        raise ConfigurationError(f"context({shown(given)}): give a Context, or keywords such as actor='alice'")
    said: dict[str, Any] = {
        "actor": actor,
        "on_behalf_of": on_behalf_of,
        "reason": reason,
        "request_id": request_id,
        "remote_addr": remote_addr,
    }
    fields = {name: value for name, value in said.items() if value is not _UNSET}
    checked = Context(**fields, extra=extra)
    inner = {name: getattr(checked, name) for name in fields}
    if given is None:
        return ContextScope({**inner, "extra": checked.extra}, checked)
    outer = {name: getattr(given, name) for name in KNOWN if getattr(given, name) is not None}
    fields = {**outer, **inner, "extra": {**given.extra, **checked.extra}}
    return ContextScope(fields, Context(**fields))


def current_context() -> Context:
    """Give the context that holds here; the same object as long as nothing changes it."""
    return _state.get().context


def require(given: Context, *, actor: bool, reason: bool) -> None:
    """Refuse a context that lacks what the configuration asks for; a blank string counts as missing.

    Args:
        given: the context of the change.
        actor: whether an actor is required.
        reason: whether a reason is required.

    Raises:
        ActorRequired: if there is no actor.
        ReasonRequired: if there is no reason.
    """
    if actor and _blank(given.actor):
        raise ActorRequired(
            f"a change with no actor (actor={given.actor!r}) was refused, since the configuration has require_actor: "
            "make it inside sa_audit.context(actor=...)"
        )
    if reason and _blank(given.reason):
        raise ReasonRequired(
            f"a change with no reason (reason={given.reason!r}) was refused, since the configuration has "
            "require_reason: make it inside sa_audit.context(reason=...)"
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    """One entered scope, linked to the one outside of it; ``context`` is all of them merged."""

    context: Context
    owner: ContextScope | None = None
    outer: _Frame | None = None

    def inner(self, owner: ContextScope) -> _Frame:
        """Give the frame of a scope entered inside this one."""
        outer = self.context
        merged = owner._alone if outer is NOBODY else _merged(outer, owner._fields)
        return _Frame(outer if merged == outer else merged, owner, self)

    def without(self, owner: ContextScope) -> _Frame:
        """Give the frames without the last one of a scope; what was entered after it stays, merged anew."""
        above: list[ContextScope] = []
        frame: _Frame | None = self
        while frame is not None and frame.owner is not owner:
            if frame.owner is not None:
                above.append(frame.owner)
            frame = frame.outer
        if frame is None or frame.outer is None:
            raise AuditError(
                "a sa_audit.context() was left in another thread or task than it was entered in, so it did not hold "
                "in between: enter and leave it in one, or use it as a decorator"
            )
        return frame.outer.onto(reversed(above))

    def onto(self, owners: Iterable[ContextScope]) -> _Frame:
        """Give the frames of several scopes entered inside this one, the outermost first."""
        frame = self
        for owner in owners:
            frame = frame.inner(owner)
        return frame


NOBODY: Final = Context()
"""The context outside of any scope."""
_state: Final[ContextVar[_Frame]] = ContextVar(
    "sa_audit.context",
    default=_Frame(NOBODY),  # noqa: B039 - frozen
)


def _merged(outer: Context, fields: Mapping[str, Any]) -> Context:
    known = {name: fields.get(name, getattr(outer, name)) for name in KNOWN}
    extra = fields["extra"]
    return Context(**known, extra={**outer.extra, **extra} if extra else outer.extra)


class _Steps:
    """Holds a scope, and whatever a generator's body enters, during its steps and not between them."""

    __slots__ = ("_base", "_last", "_owners")

    def __init__(self, scope: ContextScope) -> None:
        self._owners: list[ContextScope] = [scope]
        self._base: _Frame | None = None
        self._last: _Frame | None = None

    def __enter__(self) -> None:
        base = _state.get()
        if self._last is None or base is not self._base:
            self._base, self._last = base, base.onto(self._owners)
        _state.set(self._last)

    def __exit__(self, *_error: object) -> None:
        base, frame = self._base, _state.get()
        owners: list[ContextScope] = []
        self._last = frame
        while frame is not base and frame.owner is not None and frame.outer is not None:
            owners.append(frame.owner)
            frame = frame.outer
        self._owners = owners[::-1]
        _state.set(base if base is not None else frame)


def _held_call(scope: ContextScope, function: Any) -> Any:
    @functools.wraps(function)
    def held(*args: Any, **kwargs: Any) -> Any:
        with scope:
            result = function(*args, **kwargs)
        # A plain function may hand out what runs later, such as another decorator's coroutine: hold it there, too.
        if inspect.iscoroutine(result):
            return _held_coroutine(scope, lambda: result)()
        if inspect.isgenerator(result):
            return _held_generator(scope, lambda: result)()
        if inspect.isasyncgen(result):
            return _held_async_generator(scope, lambda: result)()
        return result

    return held


def _held_coroutine(scope: ContextScope, function: Any) -> Any:
    @functools.wraps(function)
    async def held(*args: Any, **kwargs: Any) -> Any:
        with scope:
            return await function(*args, **kwargs)

    return held


def _held_generator(scope: ContextScope, function: Any) -> Any:
    @functools.wraps(function)
    def held(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        steps, generator = _Steps(scope), function(*args, **kwargs)
        step, argument = generator.send, None
        while True:
            with steps:
                try:
                    item = step(argument)
                except StopIteration as stop:
                    return stop.value
            try:
                argument = yield item
                step = generator.send
            except GeneratorExit:
                with steps:
                    generator.close()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown into the generator
                step, argument = generator.throw, error

    return held


def _held_async_generator(scope: ContextScope, function: Any) -> Any:
    @functools.wraps(function)
    async def held(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps, generator = _Steps(scope), function(*args, **kwargs)
        step, argument = generator.asend, None
        while True:
            with steps:
                try:
                    item = await step(argument)
                except StopAsyncIteration:
                    return
            try:
                argument = yield item
                step = generator.asend
            except GeneratorExit:
                with steps:
                    await generator.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown into the generator
                step, argument = generator.athrow, error

    return held


def _blank(text: str | None) -> bool:
    return text is None or not text.strip()
