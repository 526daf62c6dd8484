"""The context around functions of all kinds, and under threads and tasks."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sa_audit.capture.context import Context, context, current_context
from sa_audit.errors import ConfigurationError

pytestmark = pytest.mark.both_captures


def actor() -> str | None:
    """Give the actor that holds here."""
    return current_context().actor


class TestDecorator:
    """The scope around functions of all four kinds."""

    def test_plain_function(self) -> None:
        """The body runs inside; name and signature stay."""

        @context(actor="alice")
        def act(n: int) -> tuple[int, str | None]:
            """Act."""
            return n, actor()

        assert act(1) == (1, "alice")
        assert actor() is None
        assert (act.__name__, act.__doc__, list(inspect.signature(act).parameters)) == ("act", "Act.", ["n"])

    def test_recursion(self) -> None:
        """A decorated function may call itself."""

        @context(actor="alice")
        def down(n: int) -> int:
            assert actor() == "alice"
            return 0 if n == 0 else 1 + down(n - 1)

        assert down(20) == 20

    def test_merges_with_the_callers(self) -> None:
        """A decorated function sees its caller's context below its own."""

        @context(reason="job")
        def act() -> Context:
            return current_context()

        with context(actor="alice", reason="x"):
            assert act() == Context(actor="alice", reason="job")

    def test_method_and_classmethod(self) -> None:
        """Methods can be decorated, classmethods below @classmethod."""

        class Job:
            @context(actor="m")
            def method(self) -> str | None:
                return actor()

            @classmethod
            @context(actor="c")
            def on_class(cls) -> str | None:
                return actor()

        assert (Job().method(), Job.on_class()) == ("m", "c")

    def test_other_things_are_refused(self) -> None:
        """A class would only be held while it is constructed, so it is refused."""
        with pytest.raises(ConfigurationError, match="decorates functions"):
            context(actor="a")(int)
        with pytest.raises(ConfigurationError, match="below @classmethod"):
            context(actor="a")(classmethod(lambda cls: 1))  # type: ignore[type-var]

    def test_coroutine_function(self) -> None:
        """The context holds across awaits, and inspection still sees a coroutine function."""

        @context(actor="alice")
        async def act() -> list[str | None]:
            before = actor()
            await asyncio.sleep(0)
            return [before, actor()]

        assert inspect.iscoroutinefunction(act)
        assert asyncio.run(act()) == ["alice", "alice"]

    def test_function_that_hands_out_a_coroutine_or_generator(self) -> None:
        """What a plain function hands out to run later runs inside, too."""

        async def act() -> str | None:
            return actor()

        def steps() -> Generator[str | None]:
            yield actor()

        async def asteps() -> AsyncGenerator[str | None]:
            yield actor()

        held = context(actor="alice")

        async def main() -> list[str | None]:
            return [await held(lambda: act())()] + [x async for x in held(lambda: asteps())()]

        assert asyncio.run(main()) == ["alice", "alice"]
        assert list(held(lambda: steps())()) == ["alice"]
        assert asyncio.run(held(functools.partial(act))()) == "alice"

    def test_generator_function(self) -> None:
        """The body sees the context at each step, the consumer never does."""

        @context(actor="gen")
        def steps() -> Generator[str | None, str, str]:
            sent = yield actor()
            assert sent == "hello"
            yield actor()
            return "end"

        assert inspect.isgeneratorfunction(steps)
        with context(actor="consumer"):
            running = steps()
            assert (next(running), actor()) == ("gen", "consumer")
            assert (running.send("hello"), actor()) == ("gen", "consumer")
            with pytest.raises(StopIteration) as stop:
                next(running)
            assert (stop.value.value, actor()) == ("end", "consumer")

    def test_generator_over_the_consumers_context_of_each_step(self) -> None:
        """Below its own context the body sees that of who asks for the step, as an undecorated generator does."""

        @context(reason="gen")
        def steps() -> Generator[Context]:
            with context(desk=1):
                while True:
                    yield current_context()

        running = steps()
        for name in ("alice", "alice", "bob"):
            with context(actor=name):
                assert next(running) == Context(actor=name, reason="gen", extra={"desk": 1})
                assert current_context() == Context(actor=name)
        assert next(running) == Context(reason="gen", extra={"desk": 1})
        running.close()
        assert current_context() == Context()

    def test_generator_interleaved(self) -> None:
        """Two running generators never see each other's context."""

        def steps() -> Generator[str | None]:
            for _ in range(3):
                yield actor()

        first, second = context(actor="1")(steps)(), context(actor="2")(steps)()
        assert list(zip(first, second, strict=True)) == [("1", "2")] * 3

    def test_generator_throw_and_close(self) -> None:
        """What is thrown in arrives inside the context, and so does the end."""
        seen: list[str | None] = []

        @context(actor="gen")
        def steps() -> Generator[str]:
            try:
                try:
                    yield "first"
                except KeyError:
                    seen.append(actor())
                    yield "thrown"
            finally:
                seen.append(actor())

        running = steps()
        next(running)
        assert running.throw(KeyError("x")) == "thrown"
        running.close()
        assert (seen, actor()) == (["gen", "gen"], None)
        abandoned = steps()
        next(abandoned)
        del abandoned
        gc.collect()
        assert (seen, actor()) == (["gen"] * 3, None)

    def test_generator_error(self) -> None:
        """An error of the body comes out, and leaves no context behind."""

        @context(actor="gen")
        def steps() -> Generator[int]:
            yield 1
            raise ValueError(actor())

        running = steps()
        next(running)
        with pytest.raises(ValueError, match="gen"):
            next(running)
        assert actor() is None

    def test_async_generator_function(self) -> None:
        """As with a generator: inside at each step, across awaits, and never for the consumer."""
        ended: list[str | None] = []

        @context(actor="gen")
        async def steps() -> AsyncGenerator[str | None, str]:
            try:
                await asyncio.sleep(0)
                sent = yield actor()
                await asyncio.sleep(0)
                try:
                    yield f"{sent} {actor()}"
                except KeyError:
                    yield "thrown"
            finally:
                await asyncio.sleep(0)
                ended.append(actor())

        async def main() -> None:
            with context(actor="consumer"):
                running = steps()
                assert (await anext(running), actor()) == ("gen", "consumer")
                assert (await running.asend("hello"), actor()) == ("hello gen", "consumer")
                assert (await running.athrow(KeyError("x")), actor()) == ("thrown", "consumer")
                await running.aclose()
                assert actor() == "consumer"
                assert [x async for x in steps()] == ["gen", "None gen"]
                running = steps()
                await anext(running)
                with pytest.raises(ValueError, match="out"):
                    await running.athrow(ValueError("out"))
                assert actor() == "consumer"

        assert inspect.isasyncgenfunction(steps)
        asyncio.run(main())
        assert ended == ["gen"] * 3


class TestConcurrency:
    """Threads and tasks."""

    def test_a_new_thread_starts_empty(self) -> None:
        """Nobody's context leaks into a thread, nor out of it."""
        seen: list[str | None] = []

        def work() -> None:
            seen.append(actor())
            context(actor="thread").__enter__()

        with context(actor="main"):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            assert (seen, actor()) == ([None], "main")

    def test_a_reused_pool_thread_keeps_nothing(self) -> None:
        """The next job on the same thread doesn't get the last one's actor."""
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(context(actor="first")(actor)).result() == "first"
            assert pool.submit(actor).result() is None

    def test_one_scope_in_many_threads(self) -> None:
        """A scope shared by threads holds for each by itself."""
        scope = context(actor="shared")
        gate = threading.Barrier(8)

        def work(n: int) -> bool:
            with context(actor=str(n)):
                gate.wait()
                with scope:
                    gate.wait()
                    inside = actor()
                gate.wait()
                return (inside, actor()) == ("shared", str(n))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))

    def test_tasks(self) -> None:
        """A task starts with its creator's context, and what it enters stays its own."""
        scope = context(reason="shared")

        async def work(n: int) -> Context:
            with context(actor=str(n)), scope:
                for _ in range(5):
                    await asyncio.sleep(0)
                return current_context()

        async def main() -> None:
            with context(branch="Oslo"):
                results = await asyncio.gather(*(work(n) for n in range(20)))
                assert current_context() == Context(extra={"branch": "Oslo"})
            for n, result in enumerate(results):
                assert result == Context(actor=str(n), reason="shared", extra={"branch": "Oslo"})
            assert await asyncio.to_thread(scope(current_context)) == Context(reason="shared")

        asyncio.run(main())
