"""The layer rule, read off the source text: `use` goes downwards only, and each kind of power has its rooms.

A rule that has to change is changed here, in the same commit and with its reason.
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
CRATES = ROOT / "crates"

# From the bottom; a module of `src`, or a crate of `crates`, may use its own layer and those below.
LAYERS = [
    {"rawthread"},
    {"sync", "sys", "metrics"},
    {"driver", "timer", "inbox", "runtime"},
    {"proto"},
    {"pyraw"},
    {"py"},
    {"event_loop"},
    {"net"},
    {"pool", "streams", "executor"},
    {"observe"},
    {"module"},
]
WITHOUT_PYTHON = {"rawthread", "sync", "sys", "driver", "proto", "inbox", "timer", "runtime", "metrics"}
UNSAFE = {
    "rawthread",
    "sync",
    "sys",
    "driver",
    "pyraw",
    "py",
    "event_loop",
    "net",
    "pool",
    "streams",
    "executor",
}
RAW_FFI = {"pyraw", "py", "event_loop", "net", "pool", "streams", "executor"}

LIBC_CALL = re.compile(r"\blibc::[a-z_0-9]+\s*\(")


def strip(text: str) -> str:
    """Remove comments, strings and unit tests."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
    return re.sub(r"#\[cfg\((?:all\()?test\b.*", "", text, flags=re.S)


def sources() -> dict[str, Path]:
    """Every file: those of `src` by their path in it, those of a crate by the crate's name and their path in its `src`."""
    found = {str(path.relative_to(SOURCE)): path for path in sorted(SOURCE.rglob("*.rs"))}
    for path in sorted(CRATES.glob("*/src/**/*.rs")):
        crate, _, *inside = path.relative_to(CRATES).parts
        found["/".join([crate, *inside])] = path
    return found


SOURCES = sources()
FILES = {name: strip(path.read_text()) for name, path in SOURCES.items() if path.name != "tests.rs"}


IN_CRATES = {name for name, path in SOURCES.items() if path.is_relative_to(CRATES)}


def module_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".rs")


def level(module: str) -> int:
    return next(index for index, modules in enumerate(LAYERS) if module in modules)


def uses(name: str) -> set[str]:
    """The crate's top-level modules that a file names, and the crates beside it."""
    text = FILES[name]
    found = set(re.findall(r"\b(pyraw|rawthread)\b", text)) - {module_of(name)}
    if name in IN_CRATES:
        return found
    found |= set(re.findall(r"\bcrate::([a-z_]+)", text))
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


def test_pyraw_knows_no_loop():
    """Any extension may be built with it: of tokioloop it names its package and the crate below."""
    loop = re.compile(
        r"event_loop|TokioLoop|tokioloop|\basyncio\b|\bnet::|\bpool::|\bstreams::", re.IGNORECASE
    )
    found = {name: loop.findall(SOURCES[name].read_text()) for name in IN_CRATES}
    assert {name: words for name, words in found.items() if words} == {}
    manifests = {
        path.parent.name: tomllib.loads(path.read_text()) for path in sorted(CRATES.glob("*/Cargo.toml"))
    }
    assert {name: set(manifest["dependencies"]) for name, manifest in manifests.items()} == {
        "pyraw": {"parking_lot", "pyo3", "tokioloop-rawthread"},
        "rawthread": {"libc"},
    }


def test_the_workspace_has_one_version_and_one_set_of_lints():
    manifests = [
        tomllib.loads(path.read_text())
        for path in [ROOT / "Cargo.toml", *sorted(CRATES.glob("*/Cargo.toml"))]
    ]
    for manifest in manifests:
        package = manifest["package"]
        assert package["name"].startswith("tokioloop")
        assert package["version"] == package["edition"] == package["license"] == {"workspace": True}
        assert manifest["lints"] == {"workspace": True}
    shared = manifests[0]["workspace"]
    ours = {name: given for name, given in shared["dependencies"].items() if name.startswith("tokioloop-")}
    assert {given["version"] for given in ours.values()} == {shared["package"]["version"]}
    assert not list(CRATES.rglob("Cargo.lock"))


def test_only_sys_calls_libc():
    """Constants of libc may be named anywhere; calls are made in `sys`, where they get safe types and errors, and in `rawthread`."""
    rooms = {"sys", "rawthread"}
    assert [
        name for name, text in FILES.items() if module_of(name) not in rooms and LIBC_CALL.search(text)
    ] == []


def test_only_the_driver_knows_mio():
    assert offenders(r"\bmio::|\buse mio\b", {"driver"}) == []


def test_only_the_runtime_knows_tokio():
    assert offenders(r"\btokio::", {"runtime"}) == []


def test_only_the_network_knows_rustls():
    assert offenders(r"\brustls::", {"net"}) == []


def test_unsafe_blocks_say_what_keeps_the_promise():
    """Every `unsafe` block or impl has a SAFETY comment above it; one comment may stand for a few lines."""
    missing = []
    for name, path in SOURCES.items():
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            code = line.split("//")[0]
            if re.search(r"\bunsafe\s*(\{|impl\b)", code):
                above = "\n".join(lines[max(0, number - 12) : number + 2])
                if "SAFETY" not in above:
                    missing.append(f"{name}:{number + 1}")
    assert missing == []


def test_files_stay_of_readable_size():
    sizes = {name: len(path.read_text().splitlines()) for name, path in SOURCES.items()}
    long = {name: size for name, size in sizes.items() if size > 800}
    assert long == {}


# Files with a lock of another kind than `Attached`, and why a reference to a Python object can't be lost in it.
PLAIN_LOCKS = {
    "net/native.rs": "holds functions",
    "pool/queues.rs": "holds inboxes, and the workers' ends of queues until each takes its own; no traverse shows what waits there",
    "pyraw/lock.rs": "is `Attached`",
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


# The calls of libc that `sys` makes without a `Detached`, and why none of them makes its thread wait.
NEVER_WAITS = {
    "__errno_location": "reads memory",
    "clock_gettime": "reads a clock",
    "dladdr": "reads tables of what is loaded",
    "dlsym": "reads tables of what is loaded",
    "epoll_ctl": "changes a list",
    "eventfd": "makes a descriptor",
    "fcntl": "reads or sets flags, copies a descriptor",
    "gai_strerror": "reads memory",
    "getsockopt": "reads a number",
    "ioctl": "FIONREAD reads a number",
    "lseek": "SEEK_SET writes a number",
    "mmap": "a page that belongs to no file",
    "mprotect": "the same page",
    "munmap": "the same page",
    "poll": "with a timeout of 0",
    "pthread_attr_destroy": "frees memory",
    "pthread_attr_getstack": "reads memory",
    "pthread_getattr_np": "reads memory, and for the main thread the process's map",
    "pthread_self": "reads memory",
    "pthread_sigmask": "changes a mask",
    "recv": "MSG_DONTWAIT",
    "recvfrom": "MSG_DONTWAIT",
    "recvmmsg": "MSG_DONTWAIT",
    "recvmsg": "MSG_DONTWAIT",
    "sched_yield": "comes back as soon as the core is free",
    "send": "MSG_DONTWAIT",
    "sendmmsg": "MSG_DONTWAIT",
    "sendmsg": "MSG_DONTWAIT",
    "sendto": "MSG_DONTWAIT",
    "sigaction": "changes a disposition",
    "sigfillset": "changes memory",
    "strerror_r": "reads memory",
    "syscall": "see SYSTEM_CALLS",
    "waitid": "WNOHANG",
    "write": "to an eventfd of ours, whose counter never fills",
    "writev": "the descriptor was seen not to block a moment before (`write_without_waiting`)",
}
SYSTEM_CALLS = {
    "SYS_gettid": "reads a number",
    "SYS_membarrier": "interrupts the other cores",
    "SYS_pidfd_open": "makes a descriptor",
    "SYS_pidfd_send_signal": "makes a signal pending",
    "SYS_preadv2": "RWF_NOWAIT",
    "SYS_pwritev2": "RWF_NOWAIT",
}
# What a call must be given, so that it does not wait: a flag, or the name of flags that has it.
GIVEN = {
    "poll": r", 0\)$",
    "waitid": "WNOHANG",
    "SYS_preadv2": "RWF_NOWAIT",
    "SYS_pwritev2": "RWF_NOWAIT",
    **dict.fromkeys(("recv", "recvfrom", "recvmmsg", "recvmsg", "sendmmsg"), "MSG_DONTWAIT"),
    **dict.fromkeys(("send", "sendmsg", "sendto"), r"(?:MSG_DONTWAIT|\bSEND\b)"),
}


def calls() -> list[tuple[str, str, str, str]]:
    """Every call of libc in `sys` and `rawthread`: the file, the function around it up to its body, the name, and the call's text."""
    found = []
    for name, text in FILES.items():
        if module_of(name) not in {"sys", "rawthread"}:
            continue
        heads = [(match.start(), match.group()) for match in re.finditer(r"\bfn \w+[^{]*\{", text)]
        for match in re.finditer(r"\blibc::([a-z_0-9]+)\s*\(", text):
            around = [head for start, head in heads if start < match.start()][-1]
            end, depth = match.end(), 1
            while depth:
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            called = match.group(1)
            if called == "syscall":
                called = re.search(r"SYS_\w+", text[match.start() : end]).group()
            found.append((name, around, called, text[match.start() : end]))
    return found


def test_no_call_keeps_an_attached_thread_waiting():
    """While one thread waits in a system call, attached to the interpreter, no thread of the process can collect."""
    known = NEVER_WAITS | SYSTEM_CALLS
    attached = [
        (name, called, text)
        for name, around, called, text in calls()
        if not re.search(r":\s*&Detached\b", around)
    ]
    assert [entry for entry in attached if entry[1] not in known] == []
    assert [entry for entry in attached if not re.search(GIVEN.get(entry[1], ""), entry[2])] == []
    assert {called for _, called, _ in attached} | {"syscall"} >= NEVER_WAITS.keys(), "no longer called"


def test_rusts_own_library_waits_nowhere():
    """Files, sockets, channels, prints, threads and condition variables; methods of socket2 beyond options and addresses."""
    waits = (
        r"\bstd::fs\b|\bFile::|\.is_file\(|\.exists\(|\bTcp(?:Stream|Listener)\b|\bUdpSocket\b|\bUnix(?:Stream|Datagram)\b"
        r"|\bstd::io::std|\be?println!|\bmpsc\b|\bthread::(?:spawn|park|sleep)|\bCondvar\b"
    )
    assert {name for name, text in FILES.items() if re.search(waits, text) and "/tests/" not in name} == {
        "sys/file.rs",  # Each takes a `Detached`: see below.
        "sync/idle.rs",  # `Tickets::take`, for detached threads.
        "sync/mod.rs",  # Names the type.
        "sync/ownership.rs",  # A run that waits for a visit: takes a `Detached`.
    }
    heads = re.findall(r"\bpub fn (\w+)\(([^)]*)\)", FILES["sys/file.rs"])
    assert [name for name, given in heads if "&Detached" not in given] == ["seek"]
    methods = set(re.findall(r"\bborrow\(fd\)\s*\.(\w+)", FILES["sys/socket.rs"]))
    assert methods == {
        "domain",
        "is_listener",
        "local_addr",
        "peer_addr",
        "set_tcp_nodelay",
        "shutdown",
        "take_error",
    }
