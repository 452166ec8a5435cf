"""The phrases that must not come back, and how the prose of a file is found: comments, docstrings, messages and pages.

`python -m tests.house.prose [PREFIX...]` prints every place that uses one, in the files whose paths begin so.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    *("src", "crates", "tokioloop", "stress", "tests", "benchmarks", "scripts", "examples"),
    *("docs", "memory-bank", "plans", "README.md", "CHANGELOG.md", "Makefile"),
]
# Files that contain the phrases as data or as rules.
NOT_READ = {"tests/house/prose.py", "tests/house/test_prose.py"}
NOT_OURS = ("target", "dist", "report", "__pycache__")

# Each phrase with the reason that it is on the list. Case does not matter, and text in backquotes is not looked at.
PHRASES = {
    # Code is not a person.
    r"(?<!people )(?<!person )(?<!users )(?<!user )(?<!readers )(?<!reader )(?<!anyone )(?<!engineer )\bwho(?:ever|m)?\b": "name the thread, the caller or the object",
    r"\b(?:nobody|somebody|everybody)\b(?:'s)?": "name the thread, the caller or the object",
    # "Is a" takes "not".
    r"(?<!there )\b(?:is|are|was|were|be|being|been|isn't) no (?!longer|more|less|later|earlier|better|worse|faster|slower|larger|smaller|shorter|greater|such)[a-z]+": "say that it is not one",
    r"\bwhat (?:is|was|are|were) there\b|\bwhat there (?:is|was|are|were)\b|\ball there (?:is|was)\b": "name the thing",
    r"\bwhat (?:comes|came) (?:of|from) (?:it|that)\b": "name the result",
    # Figures of speech that stand for one plain verb.
    r"\bwith a word\b": "say which message is printed",
    r"\b(?:is|are|was|were|be|been|being) (?:told|asked) so\b|\btold of\b|\btells? of\b": "say which call is made or what is raised",
    r"\b(?:is|are|was|were|be|been|being) (?:heard|heard of)\b": "say what happens: called, reported, noticed",
    r"\bas (?:it|they) (?:lies?|lay)\b": "say: unchanged, in place",
    r"\b(?:lies|lay) (?:in|on|at|with|there|beside|below)\b": "say: is, is kept",
    r"\bstands? (?:here|there|once|twice|in (?!for)|on|at|with|beside|below|before|behind|after|where|only|still|first|last|as|under|above|between)\b": "say: is, is kept, is listed, stops",
    r"\b(?:is|are|was|were|be|been|being) let go\b|\blets? go of\b|\bletting go\b": "say: released, dropped",
    r"\bsees? to (?:it|that|this)\b|\b(?:caller|user|loop|thread|lock|guard|claim) sees to\b": "say: ensures, checks",
    r"\bmend(?:s|ed|ing)?\b": "say: fix",
    r"\banew\b": "say: again",
    r"\bfor ever\b": "say: forever",
    r"\bkin\b": "name the members",
    r"\bin vain\b": "say: without effect, found nothing",
    r"\b(?:whence|thither|whither|thereof|wherein|therein|whereof|thereby)\b": "an old word",
    r"\bdear(?:er|est)?\b": "say: expensive",
    r"\b(?:asyncio|uvloop|there) alike\b": "say: as on asyncio",
    r"\bbut for\b|\bsave for\b|\bbut where\b|\ball but\b": "say: except for, except where",
    r"\bas (?:was )?(?:said|promised)\b": "repeat the fact in a few words, or name where it is",
    r"\bwithout more\b|\bno more so\b|\bso no more\b": "say: otherwise, no longer",
    r"\bgoes on as\b": "say: continues as",
    # Two negatives.
    r"\bnot un(?!i|der|til|less|wind|pack|park|lock|link|mount|do\b|set\b|seen\b|register|mute)[a-z]+": "two negatives",
    r"\b(?:not|never|nothing|none|no [a-z]+) (?:[a-z]+ )?without (?:having|being|its|that|a|the|any)\b": "two negatives",
    r"\bneither [a-z]+ (?:nor [a-z]+ )?not\b": "two negatives",
    # The verb at the end, the object before it.
    r"\b(?:is|are|was|were) (?:by|from|to|for|of) (?:it|them|this|that|these|those|him) [a-z]+(?:ed|en|ne|de|ld)\b": "the verb comes before its complements",
    r"\bwas then had\b|\bhas then had\b": "the verb comes before its complements",
    r"(?:^|[.;:] )else [a-z]": "say: otherwise",
    r"\bwere it (?:not|so)\b|\bbe it\b": "say: if",
    r"\bof whose\b": "split the sentence",
    r"\b(?:so does|so do|so is|so are) (?:it|they|that|this)\b": "say: too, also",
    r"\bsays? so\b|\bsaid so\b|\bsaying so\b": "say what is said: which message, which flag",
}
RULES = [(re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in PHRASES.items()]


class Hit(NamedTuple):
    line: int
    text: str
    advice: str
    around: str


def files() -> list[Path]:
    found = []
    for room in ROOMS:
        path = ROOT / room
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            name = str(file.relative_to(ROOT))
            ours = not any(part in NOT_OURS for part in file.relative_to(ROOT).parts)
            if file.suffix in READERS and name not in NOT_READ and ours and file.is_file():
                found.append(file)
    return found


type Pieces = Iterator[tuple[int, str]]


def of_python(text: str) -> Pieces:
    """Comments, strings of some words, and the names of tests, word by word."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#! ")
        elif token.type in (tokenize.STRING, tokenize.FSTRING_MIDDLE) and token.string.count(" ") >= 2:
            for offset, line in enumerate(token.string.strip("\"'").splitlines()):
                yield token.start[0] + offset, line.strip()
        elif token.type == tokenize.NAME and token.string.startswith("test_"):
            yield token.start[0], "¶ " + token.string.replace("_", " ") + " ¶"


RUST = re.compile(r'"((?:\\.|[^"\\])*)"|//[/!]?(.*)$')


def of_rust(text: str) -> Pieces:
    for number, line in enumerate(text.splitlines(), 1):
        for match in RUST.finditer(line):
            words = match[1] if match[1] is not None else match[2]
            if match[1] is None or words.count(" ") >= 2:
                yield number, words.strip()


def of_page(text: str) -> Pieces:
    """All lines but code: fenced or indented blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, line.strip()


def of_settings(text: str) -> Pieces:
    yield from enumerate(text.splitlines(), 1)


READERS = {
    ".py": of_python,
    ".pyi": of_python,
    ".rs": of_rust,
    ".md": of_page,
    ".toml": of_settings,
    "": of_settings,
}


def words_of(text: str, suffix: str) -> tuple[str, list[tuple[int, int]]]:
    """The words of a file in one line, and where in them each line of the file begins."""
    words = ""
    lines: list[tuple[int, int]] = []
    before = 0
    for number, piece in READERS[suffix](text):
        if number > before + 1 or not piece:
            words += "¶ "
        lines.append((len(words), number))
        words += re.sub(r"`[^`]*`", "``", piece) + " "
        before = number
    return words, lines


def hits(text: str, suffix: str) -> list[Hit]:
    words, lines = words_of(text, suffix)
    found = []
    for rule, advice in RULES:
        for match in rule.finditer(words):
            line = next(number for begins, number in reversed(lines) if begins <= match.start())
            found.append(Hit(line, match[0], advice, words[max(match.start() - 60, 0) : match.end() + 40]))
    return sorted(found)


def all_hits() -> dict[str, list[Hit]]:
    """The hits of each file that has any, by its path from the root."""
    return {
        str(path.relative_to(ROOT)): found
        for path in files()
        if (found := hits(path.read_text(), path.suffix))
    }


def main() -> None:
    for name, found in all_hits().items():
        if not sys.argv[1:] or name.startswith(tuple(sys.argv[1:])):
            for hit in found:
                print(f"{name}:{hit.line}: {hit.text!r} ({hit.advice}): ...{hit.around}...")


if __name__ == "__main__":
    main()
