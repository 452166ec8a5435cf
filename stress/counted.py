"""Objects that are counted as long as they live."""

from typing import Any


class Counted:
    """What objects refer to: all of it must be freed, once.

    A destructor may run in the middle of another one on its thread. So there is no lock that it could meet again, and no number that it
    could change in between: each change of the set is one call.
    """

    _alive: set[int] = set()  # noqa: RUF012 - one for all

    def __init__(self) -> None:
        Counted._alive.add(id(self))

    def __del__(self) -> None:
        Counted._alive.discard(id(self))

    def __call__(self, *_: Any) -> None:
        pass

    @staticmethod
    def alive() -> int:
        """How many there are."""
        return len(Counted._alive)
