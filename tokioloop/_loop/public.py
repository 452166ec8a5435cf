"""The decorator for public names of the package."""

from typing import Any


def public[T](thing: T) -> T:
    """Set the module of a class or a function to ``tokioloop``: pickles and reprs name it so, wherever it is defined."""
    marked: Any = thing
    marked.__module__ = "tokioloop"
    return thing
