"""Files of `src/` that import one another in a circle. The list of those that are left only shrinks.

A file in a circle can't be read, moved or tested without the others. A circle opens by moving one thing down: the type that both need,
or a function that the upper file registers below.
"""

from . import circles

LEFT = {
    frozenset(
        {
            "driver/datagram.rs",
            "driver/source.rs",
        }
    ),
    frozenset(
        {
            "net/tls/config.rs",
            "net/tls/engine/mod.rs",
            "net/tls/engine/rustls/mod.rs",
        }
    ),
    frozenset(
        {
            "streams/operation.rs",
            "streams/protocol.rs",
            "streams/reader.rs",
            "streams/reads.rs",
            "streams/writer.rs",
        }
    ),
    frozenset(
        {
            "pool/across.rs",
            "pool/end.rs",
            "pool/job.rs",
            "pool/job_type.rs",
            "pool/queues.rs",
            "pool/start.rs",
            "pool/worker.rs",
        }
    ),
    frozenset(
        {
            "net/sock/call.rs",
            "net/sock/datagram.rs",
            "net/sock/file.rs",
            "net/sock/mod.rs",
            "net/sock/operation.rs",
            "net/sock/stream.rs",
            "net/stream/extra.rs",
            "net/stream/mod.rs",
            "net/watch.rs",
        }
    ),
}

FOUND = circles.circles()


def shown(found: set[frozenset[str]]) -> str:
    arrows = (
        f"{name} -> {other}"
        for circle in found
        for name in sorted(circle)
        for other in sorted(circles.GRAPH[name] & circle)
    )
    return "\n".join(arrows)


def test_no_circle_is_closed() -> None:
    new = {circle for circle in FOUND if not any(circle <= left for left in LEFT)}
    assert not new, shown(new)


def test_the_list_only_shrinks() -> None:
    gone = LEFT - FOUND
    assert not gone, f"open, or smaller, and to be struck off: {[sorted(circle) for circle in gone]}"


def test_the_paths_of_a_use() -> None:
    found = list(circles.leaves("crate::a::{self, b::{C, D as E}, f}"))
    assert found == [
        (["crate", "a"], "a"),
        (["crate", "a", "b", "C"], "C"),
        (["crate", "a", "b", "D"], "E"),
        (["crate", "a", "f"], "f"),
    ]


def test_imports_are_found() -> None:
    """A wrong reading of the text would find no circle anywhere."""
    assert {"event_loop/core.rs", "event_loop/endpoint.rs", "event_loop/on_loop.rs"} <= circles.GRAPH[
        "event_loop/door.rs"
    ]
    # By a name of the room, `turn`, that a `use` brings.
    assert "event_loop/turn.rs" in circles.GRAPH["pool/start.rs"]
