"""No phrase of the list in prose.py comes back. The lists of places that still have one only shrink."""

import pytest

from . import prose

# Folders that are being rewritten as a whole.
BEING_REWRITTEN: tuple[str, ...] = (
    "src/",
    "crates/",
    "tokioloop/",
)

# Files that still use a phrase. One that is clean is struck off.
UNCLEAN: set[str] = {
    "memory-bank/decisions.md",
    "plans/sound.md",
    "tests/benchmarks/test_builds.py",
    "tests/benchmarks/test_commands.py",
    "tests/benchmarks/test_growth.py",
    "tests/benchmarks/test_performance.py",
    "tests/benchmarks/test_targets.py",
    "tests/compat/applications.py",
    "tests/compat/servers.py",
    "tests/compat/test_cross_loop.py",
    "tests/compat/test_subprocess.py",
    "tests/conformance/__init__.py",
    "tests/conformance/made_up_time.py",
    "tests/conformance/worker.py",
    "tests/house/hammer.py",
    "tests/house/hot_errors.py",
    "tests/house/lives.py",
    "tests/house/test_derived_classes.py",
    "tests/loop/blocking_cases.py",
    "tests/loop/nonsense.py",
    "tests/loop/test_accept.py",
    "tests/loop/test_accept_errors.py",
    "tests/loop/test_blocking.py",
    "tests/loop/test_call_soon.py",
    "tests/loop/test_close_fails.py",
    "tests/loop/test_context.py",
    "tests/loop/test_datagram.py",
    "tests/loop/test_debug.py",
    "tests/loop/test_depth.py",
    "tests/loop/test_dup.py",
    "tests/loop/test_end_sends.py",
    "tests/loop/test_errors.py",
    "tests/loop/test_exit.py",
    "tests/loop/test_fork_running.py",
    "tests/loop/test_gc.py",
    "tests/loop/test_handles.py",
    "tests/loop/test_inbox_garbage.py",
    "tests/loop/test_log.py",
    "tests/loop/test_main_thread.py",
    "tests/loop/test_named_contexts.py",
    "tests/loop/test_native_cancel.py",
    "tests/loop/test_native_current.py",
    "tests/loop/test_native_eager.py",
    "tests/loop/test_native_iterators.py",
    "tests/loop/test_native_life.py",
    "tests/loop/test_native_steps.py",
    "tests/loop/test_native_threads.py",
    "tests/loop/test_network_errors.py",
    "tests/loop/test_no_garbage.py",
    "tests/loop/test_no_starving.py",
    "tests/loop/test_panics.py",
    "tests/loop/test_pipe.py",
    "tests/loop/test_read.py",
    "tests/loop/test_read_large.py",
    "tests/loop/test_rest.py",
    "tests/loop/test_reuse.py",
    "tests/loop/test_signals_threads.py",
    "tests/loop/test_sock.py",
    "tests/loop/test_sock_datagram.py",
    "tests/loop/test_sock_kept.py",
    "tests/loop/test_sock_kept_edges.py",
    "tests/loop/test_sock_kept_numbers.py",
    "tests/loop/test_subinterpreters.py",
    "tests/loop/test_tasks.py",
    "tests/loop/test_threadsafe.py",
    "tests/loop/test_threadsafe_close.py",
    "tests/loop/test_timers.py",
    "tests/loop/test_tls_callbacks.py",
    "tests/loop/test_tls_close.py",
    "tests/loop/test_tls_end_sends.py",
    "tests/loop/test_tls_faults.py",
    "tests/loop/test_tls_half_message.py",
    "tests/loop/test_tls_handshake.py",
    "tests/loop/test_tls_injection.py",
    "tests/loop/test_tls_objects.py",
    "tests/loop/test_tls_read.py",
    "tests/loop/test_tls_shared_object.py",
    "tests/loop/test_tls_two_libraries.py",
    "tests/loop/test_tls_write.py",
    "tests/loop/test_watch.py",
    "tests/packaging/test_ci.py",
    "tests/packaging/test_contents.py",
    "tests/packaging/test_import.py",
    "tests/packaging/test_set_up.py",
    "tests/pool/support.py",
    "tests/pool/test_cancel.py",
    "tests/pool/test_errors.py",
    "tests/pool/test_exit.py",
    "tests/pool/test_futures.py",
    "tests/pool/test_imap.py",
    "tests/pool/test_odd_futures.py",
    "tests/pool/test_run_on.py",
    "tests/pool/test_setup.py",
    "tests/pool/test_submit.py",
    "tests/stress_harness/catalogue.py",
    "tests/stress_harness/test_harness.py",
    "tests/test_layers.py",
}


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
