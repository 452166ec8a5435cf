"""Native stream readers against asyncio's: the same calls in the same order have the same results."""

import asyncio
import random
from typing import Any

import pytest

import tokioloop

ALPHABET = b"ab\r\n"
SEPARATORS = [
    b"\n",
    b"\r\n",
    b"ab",
    b"a\r\nb",
    (b"\n", b"\r\n"),
    (b"ab", b"b"),
    (b"ba\n", b"a"),
    bytearray(b"b"),
]
BAD_SEPARATORS = [b"", (), (b"", b"a")]


class Recorder:
    """Takes the place of a transport: how often it was paused and resumed."""

    def __init__(self, log: list[str], may_pause: bool) -> None:
        self.log, self.may_pause = log, may_pause

    def pause_reading(self) -> None:
        self.log.append("pause")
        if not self.may_pause:
            raise NotImplementedError

    def resume_reading(self) -> None:
        self.log.append("resume")


class Side:
    """A reader, stepped by hand, with a record of its results."""

    def __init__(self, kind: Any, loop: Any, limit: int, may_pause: bool) -> None:
        self.log: list[Any] = []
        self.reader = kind(limit, loop)
        self.reader.set_transport(Recorder(self.log, may_pause))
        self.under_way: Any = None

    def begin(self, name: str, *args: Any) -> None:
        self.under_way = getattr(self.reader, name)(*args)
        self.step()

    def step(self) -> None:
        try:
            yielded = self.under_way.send(None)
        except StopIteration as stop:
            self.log.append(("returned", type(stop.value), stop.value))
        except BaseException as error:
            self.log.append(("raised", type(error), error.args, getattr(error, "partial", None)))
        else:
            assert asyncio.isfuture(yielded) and yielded._asyncio_future_blocking
            yielded._asyncio_future_blocking = False
            self.log.append("waits")
            return
        self.under_way = None

    def call(self, name: str, *args: Any) -> None:
        try:
            self.log.append((name, getattr(self.reader, name)(*args)))
        except BaseException as error:
            self.log.append((name, type(error), error.args))

    def end(self, how: str) -> None:
        try:
            if how == "close":
                self.under_way.close()
            else:
                self.under_way.throw(KeyError("thrown"))
        except BaseException as error:
            self.log.append((how, type(error), error.args))
        self.under_way = None

    def look(self) -> None:
        reader = self.reader
        waits = reader._waiter is not None
        self.log.append(
            (len(reader._buffer) if self.shows else None, reader._eof, reader._paused, waits, reader.at_eof())
        )

    shows = True


def reads(chance: random.Random) -> tuple[Any, ...]:
    match chance.randrange(6):
        case 0:
            return "read", chance.choice([0, 1, 2, 5, 100, -1])
        case 1:
            return "readexactly", chance.choice([0, 1, 3, 8, 30, -1])
        case 2:
            return "readuntil", chance.choice(SEPARATORS)
        case 3:
            return ("readuntil",) if chance.random() < 0.8 else ("readuntil", chance.choice(BAD_SEPARATORS))
        case 4:
            return ("readline",)
        case _:
            return ("__anext__",)


@pytest.mark.parametrize("shows", [True, False], ids=["buffer looked at", "buffer left alone"])
@pytest.mark.parametrize("seed", range(150))
def test_the_same_calls_have_the_same_results(loop, seed, shows):
    """While `_buffer` is not read, pieces are kept as they came; reading it moves them into the bytearray."""
    chance = random.Random(f"{seed} {shows}")
    limit = chance.choice([1, 3, 8, 64])
    theirs, ours = (
        Side(kind, loop, limit, seed % 5 != 0) for kind in (asyncio.StreamReader, tokioloop.StreamReader)
    )
    ours.shows = theirs.shows = shows
    for _ in range(chance.randrange(10, 120)):
        do: list[Any] = []
        data = bytes(chance.choices(ALPHABET, k=chance.choice([0, 1, 2, 3, 7, 20])))
        roll = chance.random()
        if roll < 0.45:
            do = ["call", "feed_data", chance.choice([bytes, bytearray, memoryview])(data)]
        elif roll < 0.47:
            do = ["call", "feed_eof"]
        elif roll < 0.48:
            do = ["call", "set_exception", LookupError("set")]
        elif roll < 0.50 and theirs.under_way is not None:
            do = ["end", chance.choice(["close", "throw"])]
        elif theirs.under_way is None:
            do = ["begin", *reads(chance)]
        for side in (theirs, ours):
            if do:
                getattr(side, do[0])(*do[1:])
            # A waiting read is stepped once its future is done.
            if side.under_way is not None and side.reader._waiter is None:
                side.step()
            side.look()
        assert ours.log == theirs.log, do
    if theirs.under_way is not None:
        theirs.end("close")
        ours.end("close")
    assert bytes(ours.reader._buffer) == bytes(theirs.reader._buffer)
