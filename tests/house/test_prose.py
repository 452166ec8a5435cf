"""No phrase of the list in prose.py comes back. The lists of places that still have one only shrink."""

import pytest

from . import prose

# Folders that are being rewritten as a whole.
BEING_REWRITTEN: tuple[str, ...] = ()

# Files that still use a phrase. One that is clean is struck off.
UNCLEAN: set[str] = set()


FOUND = prose.all_hits()


def test_no_phrase_comes_back() -> None:
    new = [
        f"{name}:{hit.line}: {hit.text!r} ({hit.advice})"
        for name, hits in FOUND.items()
        if name not in UNCLEAN and not name.startswith(BEING_REWRITTEN)
        for hit in hits
    ]
    assert not new, "\n".join(new)


def test_the_lists_only_shrink() -> None:
    assert FOUND.keys() >= UNCLEAN, f"clean, to be struck off: {sorted(UNCLEAN - FOUND.keys())}"
    for folder in BEING_REWRITTEN:
        assert any(name.startswith(folder) for name in FOUND), f"clean, to be struck off: {folder}"


def hits_of(words: str) -> list[str]:
    return [hit.text for hit in prose.hits(words, ".md")]


@pytest.mark.parametrize(
    "words",
    [
        "Wakes whoever waits.",
        "The thread who runs it.",
        "It is nobody's.",
        "A path that is no regular file.",
        "The row is left out with a word.",
        "The caller is told so.",
        "It is left as it lies.",
        "The state stands in the core.",
        "It is not uncommon.",
        "Nothing goes without a claim.",
        "The handle is by it released.",
        "It was then had by two.",
        "A loop is made anew.",
        "Else it waits.",
        "It waits for ever.",
    ],
)
def test_a_phrase_is_found(words: str) -> None:
    assert hits_of(words)


@pytest.mark.parametrize(
    "words",
    [
        "Users who change the limit.",
        "There is no loop.",
        "It is no longer than the buffer.",
        "The flag stands for a wake-up.",
        "An uncommon name is not wrong.",
        "The task is released by the worker.",
        "Raises TypeError; otherwise waits forever.",
        "if ready: go; else: wait",
    ],
)
def test_plain_words_pass(words: str) -> None:
    assert hits_of(words) == []


PYTHON = '"""A page for nobody."""\n# Who waits\nraise ValueError("a text that nobody reads")\ndef test_nobody_waits(): ...\n'
RUST = (
    '//! Nobody waits.\nfn f() { g("a text that nobody reads"); } // whoever\n/// A claim is\n/// no lock\n'
)
PAGE = "Nobody waits.\n```\nnobody\n```\nThe name `nobody`.\n    nobody\nThe caller is\ntold so.\n"


@pytest.mark.parametrize(
    ("text", "suffix", "lines"),
    [(PYTHON, ".py", [1, 2, 3, 4]), (RUST, ".rs", [1, 2, 2, 3]), (PAGE, ".md", [1, 7])],
)
def test_all_kinds_of_prose_are_read(text: str, suffix: str, lines: list[int]) -> None:
    assert [hit.line for hit in prose.hits(text, suffix)] == lines
