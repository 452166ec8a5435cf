"""A mark for each of many numbers, a byte each: what a scenario keeps of every job must not look like a leak."""


class Marks:
    """Counts up to 255 for whole numbers from 0 on; one thread at a time."""

    def __init__(self) -> None:
        self._counts = bytearray()

    def add(self, number: int) -> int:
        """Count *number* once more, and return how often it was counted."""
        if number >= len(self._counts):
            self._counts.extend(bytes(number + 1024 - len(self._counts)))
        self._counts[number] += 1
        return self._counts[number]

    def __len__(self) -> int:
        """How many numbers were counted."""
        return len(self._counts) - self._counts.count(0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Marks) and self._counts.rstrip(b"\0") == other._counts.rstrip(b"\0")

    __hash__ = None  # type: ignore[assignment]

    def more_than_once(self) -> list[int]:
        """The numbers that were counted twice or more."""
        return [number for number, count in enumerate(self._counts) if count > 1]
