"""The Debian archives this machine already trusts, read from its own apt sources.

This project contains no address: an archive is used only where the machine's administrator has configured it, with the key
configured for it. Both forms are read: deb822 (`*.sources`) and one entry per line (`*.list`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

APT = Path("/etc/apt")


@dataclass(frozen=True)
class Archive:
    """One archive: its address and the key that signs it (a path, fingerprints, or an inline block; "" for apt's own keys)."""

    uri: str
    signed_by: str

    def source_entry(self, suite: str) -> str:
        """A deb822 stanza for the sources of `suite`."""
        lines = ["Types: deb-src", f"URIs: {self.uri}", f"Suites: {suite}", "Components: main"]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def archives(apt: Path = APT) -> list[Archive]:
    """Every archive configured under `apt`, likely Debian ones first, each once."""
    found: list[Archive] = []
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        if file.suffix == ".sources":
            found += parse_deb822(text)
        elif file.suffix == ".list":
            found += parse_lines(text)
    usable = [archive for archive in dict.fromkeys(found) if not _is_partial(archive.uri)]
    return sorted(usable, key=lambda archive: not _looks_debian(archive.uri))


def parse_deb822(text: str) -> list[Archive]:
    """The archives of a `*.sources` file."""
    found = []
    for fields in _stanzas(text):
        if fields.get("enabled", "yes").strip().lower() in ("no", "false", "0"):
            continue
        found += [Archive(uri, fields.get("signed-by", "")) for uri in fields.get("uris", "").split()]
    return found


def parse_lines(text: str) -> list[Archive]:
    """The archives of a `*.list` file: `deb [option=value ...] uri suite component...`."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[([^]]*)\]\s*)?(\S+)\s+\S+", line)
        if match:
            options = dict(re.findall(r"(\S+?)=(\S+)", match[1] or ""))
            found.append(Archive(match[2], options.get("signed-by", "").replace(",", " ")))
    return found


def _stanzas(text: str) -> list[dict[str, str]]:
    """deb822 fields by lower-case name; continuation lines keep their leading blank, so that an inline key survives."""
    stanzas: list[dict[str, str]] = []
    for block in re.split(r"\n[ \t]*(?:\n[ \t]*)*\n", "\n" + text + "\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                if name:
                    fields[name] += "\n" + line
                continue
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
        if fields:
            stanzas.append(fields)
    return stanzas


def _is_partial(uri: str) -> bool:
    """Archives that never hold whole releases, or media that may not be inserted."""
    return "security" in uri or uri.startswith("cdrom:")


def _looks_debian(uri: str) -> bool:
    return uri.rstrip("/").endswith("debian")
