"""The layer rule, read off the source text: `use` goes downwards only, and each kind of power has its rooms.

A rule that has to change is changed here, in the same commit and with its reason.
"""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

# From the bottom; a module may use its own layer and those below.
LAYERS = [
    {"sync", "sys", "metrics"},
    {"driver", "timer", "inbox", "runtime"},
    {"proto"},
    {"py"},
    {"event_loop"},
    {"net"},
    {"pool", "streams", "executor"},
    {"observe"},
    {"module"},
]
WITHOUT_PYTHON = {"sync", "sys", "driver", "proto", "inbox", "timer", "runtime", "metrics"}
UNSAFE = {"sync", "sys", "driver", "py", "event_loop", "net", "pool", "streams", "executor"}
RAW_FFI = {"py", "event_loop", "net", "pool", "streams", "executor"}

LIBC_CALL = re.compile(r"\blibc::[a-z_0-9]+\s*\(")


def strip(text: str) -> str:
    """Remove comments, strings and unit tests."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
    return re.sub(r"#\[cfg\((?:all\()?test\b.*", "", text, flags=re.S)


def files() -> dict[str, str]:
    return {
        str(path.relative_to(SOURCE)): strip(path.read_text())
        for path in sorted(SOURCE.rglob("*.rs"))
        if path.name != "tests.rs"
    }


FILES = files()


def module_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".rs")


def level(module: str) -> int:
    return next(index for index, modules in enumerate(LAYERS) if module in modules)


def uses(name: str) -> set[str]:
    """The crate's top-level modules that a file names."""
    text = FILES[name]
    found = set(re.findall(r"\bcrate::([a-z_]+)", text))
    for group in re.findall(r"\bcrate::\{([^;]*)\}", text):
        depth = 0
        for token in re.findall(r"[a-z_]+|[{}]", group):
            if token in "{}":
                depth += 1 if token == "{" else -1
            elif depth == 0:
                found.add(token)
    return found & {module for modules in LAYERS for module in modules}


def offenders(pattern: str, allowed: set[str]) -> list[str]:
    return [
        name
        for name, text in FILES.items()
        if module_of(name) not in allowed and re.search(pattern, text) and name != "lib.rs"
    ]


def test_every_module_has_a_layer():
    known = {module for modules in LAYERS for module in modules}
    assert {module_of(name) for name in FILES} - {"lib"} == known


@pytest.mark.parametrize("name", [name for name in FILES if name != "lib.rs"])
def test_imports_go_downwards_only(name):
    mine = level(module_of(name))
    assert {other for other in uses(name) if level(other) > mine} == set()


def test_the_driver_and_what_is_below_it_do_not_know_the_protocols():
    for name in FILES:
        if module_of(name) in LAYERS[0] | LAYERS[1]:
            assert "proto" not in uses(name), name


def test_layers_below_python_do_not_know_it():
    rest = {module for modules in LAYERS for module in modules} - WITHOUT_PYTHON
    assert offenders(r"\bpyo3\b", rest) == []


def test_unsafe_has_its_rooms():
    assert offenders(r"\bunsafe\b", UNSAFE) == []


def test_pythons_c_api_has_its_rooms():
    assert offenders(r"(?<!std::)\bffi::", RAW_FFI) == []


def test_only_sys_calls_libc():
    """Constants of libc may be named anywhere; calls are made in `sys`, where they get safe types and errors."""
    assert [name for name, text in FILES.items() if module_of(name) != "sys" and LIBC_CALL.search(text)] == []


def test_only_the_driver_knows_mio():
    assert offenders(r"\bmio::|\buse mio\b", {"driver"}) == []


def test_only_the_runtime_knows_tokio():
    assert offenders(r"\btokio::", {"runtime"}) == []


def test_only_the_network_knows_rustls():
    assert offenders(r"\brustls::", {"net"}) == []


def test_unsafe_blocks_say_who_keeps_the_promise():
    """Every `unsafe` block or impl has a SAFETY comment above it; one comment may stand for a few lines."""
    missing = []
    for path in sorted(SOURCE.rglob("*.rs")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            code = line.split("//")[0]
            if re.search(r"\bunsafe\s*(\{|impl\b)", code):
                above = "\n".join(lines[max(0, number - 12) : number + 2])
                if "SAFETY" not in above:
                    missing.append(f"{path.relative_to(SOURCE)}:{number + 1}")
    assert missing == []


def test_files_stay_of_readable_size():
    long = {
        str(p.relative_to(SOURCE)): n
        for p in SOURCE.rglob("*.rs")
        if (n := len(p.read_text().splitlines())) > 800
    }
    assert long == {}


# Files with a lock of another kind than `Attached`, and why a reference to a Python object can't be lost in it.
PLAIN_LOCKS = {
    "net/native.rs": "holds functions",
    "pool/queues.rs": "holds inboxes, and the workers' ends of queues until each takes its own; no traverse shows what waits there",
    "py/attached.rs": "is `Attached`",
    "runtime.rs": "holds settings and the runtime",
    "sync/biased.rs": "holds nothing",
    "sync/idle.rs": "holds a count",
    "sync/mod.rs": "names the type",
    "sys/libssl/connection.rs": "holds bytes",
    "sys/signal.rs": "holds dispositions and descriptors",
}


def test_locks_of_python_references_are_taken_attached():
    """What the collector visits is behind `Attached`, whose guard needs the token of an attached thread."""
    lock = r"\b(?:Mutex|RwLock|ReentrantMutex|FairMutex)\b"
    assert {name for name, text in FILES.items() if re.search(lock, text)} == set(PLAIN_LOCKS)


def test_no_lock_is_passed_by():
    assert [name for name, text in FILES.items() if re.search(r"\bdata_ptr\(|\bforce_unlock", text)] == []
