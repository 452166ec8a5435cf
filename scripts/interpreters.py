"""The facts of an interpreter: its version, with or without the GIL, and whether pip and TLS can work in it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 13)

_PROBE = """
import json, sys, sysconfig
missing = []
for name in ("ssl", "zlib", "venv", "ensurepip", "_socket"):
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
print(json.dumps({
    "executable": sys.executable,
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "build": sys.version,
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
    "missing": missing,
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """The facts of a Python, as it reported them."""

    executable: Path
    implementation: str
    version: tuple[int, int, int]
    build: str
    free_threaded: bool
    suffix: str
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        number = ".".join(map(str, self.version))
        return f"CPython {number} ({'free-threaded' if self.free_threaded else 'with the GIL'})"

    def unfit(self) -> str:
        """Why tokioloop cannot use this interpreter; "" when it can."""
        if self.implementation != "cpython":
            return f"it is {self.implementation}, not CPython"
        if self.version[:2] < OLDEST:
            return f"it is Python {'.'.join(map(str, self.version))}; tokioloop needs 3.13 or later"
        if self.missing:
            return f"it lacks the modules {', '.join(self.missing)}"
        return ""


def probe(command: str | os.PathLike[str]) -> Interpreter | None:
    """Run `command` and read its facts; None when it does not run (a shim without a version, a broken link)."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONHOME", "PYTHONPATH", "PYTHON_GIL", "__PYVENV_LAUNCHER__")
    }
    try:
        answer = subprocess.run(
            [os.fspath(command), "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=True,
            env=environment,
        )
        found = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Interpreter(
        executable=Path(found["executable"]),
        implementation=found["implementation"],
        version=tuple(found["version"]),
        build=found["build"],
        free_threaded=found["free_threaded"],
        suffix=found["suffix"],
        missing=tuple(found["missing"]),
    )
