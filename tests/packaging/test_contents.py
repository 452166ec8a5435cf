"""The contents of the project's files: things that must be in them, and things that must not."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Written in pieces, so that this file does not name them either.
REGISTRIES = [
    "py" + "pi" + r"\.org",
    "python" + "hosted" + r"\.org",
    "crates" + r"\.io",
    "registry" + r"\.npmjs",
    "deb" + r"\.debian\.org",
    "ftp\\." + r"[a-z.]*debian\.org",
    "archive" + r"\.ubuntu",
    "proxy\\." + "golang",
]
MADE = {".git", "target", "dist", "__pycache__"}


def project_files() -> list[Path]:
    """The checkout's own files: those that git tracks or would track, or without git everything not made by tools."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(listing, cwd=ROOT, capture_output=True, check=False)
    if answer.returncode == 0 and answer.stdout:
        names = answer.stdout.decode().split("\0")
        paths = [ROOT / name for name in names if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not _is_made(path)]
    return [path for path in paths if path.is_file()]


def _is_made(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part in MADE or part.startswith(".venv") or part.endswith("_cache") for part in parts)


def test_no_file_names_a_registry() -> None:
    pattern = re.compile("|".join(REGISTRIES).encode(), re.IGNORECASE)
    files = [path for path in project_files() if path.name != "Cargo.lock"]
    assert ROOT / "pyproject.toml" in files
    named = {
        str(path.relative_to(ROOT)): found[0].decode()
        for path in files
        if (found := pattern.search(path.read_bytes()))
    }
    assert named == {}


def test_no_python_lock_file() -> None:
    assert [
        path.name for path in project_files() if path.name in ("uv.lock", "poetry.lock", "pdm.lock")
    ] == []


def test_pins() -> None:
    """The last releases of pyo3 and maturin that know 3.13t."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pyo3 = cargo["workspace"]["dependencies"]["pyo3"]
    assert (pyo3 if isinstance(pyo3, str) else pyo3["version"]) == "0.28"
    assert python["build-system"]["requires"] == ["maturin>=1.13.3,<1.14"]
    assert python["dependency-groups"]["build"] == python["build-system"]["requires"]


def test_the_package_is_typed() -> None:
    assert (ROOT / "tokioloop" / "py.typed").exists()
    assert (ROOT / "tokioloop" / "_tokioloop.pyi").exists()
