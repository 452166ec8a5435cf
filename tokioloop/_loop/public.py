"""The marker of what the package makes public."""

from typing import Any


def public[T](thing: T) -> T:
    """Have a class or a function say that it is ``tokioloop``'s: that is what pickles and reprs name, wherever it stands."""
    marked: Any = thing
    marked.__module__ = "tokioloop"
    return thing
