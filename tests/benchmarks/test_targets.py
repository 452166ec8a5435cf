"""The targets of rows, and whether they are met."""

import pytest

from benchmarks import peers, run
from benchmarks.model import Target
from benchmarks.rows import ROWS, select, split, variants
from benchmarks.rows.why import UNKNOWN, WHY, why
from benchmarks.summary import Summary


def summary(results):
    return Summary(results.document)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("echo_protocol", "uvloop / 1.05, floor x 1.06"),
        ("echo_protocol_1000", "uvloop / 1.15, floor x 1.06"),
        ("echo_buffered", "uvloop / 1.15, floor x 1.08"),
        ("echo_streams", "uvloop / 2, floor x 1.3"),
        ("echo_sock", "uvloop / 3.3, floor x 1.25"),
        ("unix_protocol", "uvloop / 1.15, floor x 1.08"),
        ("udp_echo", "uvloop / 1.5, floor x 1"),
        ("http", "uvloop / 1.15, floor x 1.2"),
        ("echo_100k", "uvloop / 1.05"),
        ("echo_100k_streams", "uvloop / 1.8"),
        ("connect", "uvloop / 1.05, floor x 1.06"),
        ("tls_echo", "uvloop / 1.45"),
        ("tls_echo_64k", "uvloop / 1.35"),
        ("loop_create_close", "uvloop / 4, < 15"),
        ("threadsafe_burst", "uvloop / 5"),
    ],
)
def test_a_row_has_the_agreed_target(name, target):
    assert str(ROWS[name].target) == target


def test_a_row_with_a_target_against_the_floor_has_a_floor():
    missing = [row.name for row in ROWS.values() if row.target and row.target.floor and row.floor is None]
    assert missing == []


@pytest.mark.parametrize(
    ("tokioloop", "over_floor", "met"),
    [(9.5, 1.05, True), (9.6, 1.05, False), (9.5, 1.07, False), (10.0, 2.0, False)],
)
def test_both_parts_of_a_target_have_to_hold(results, tokioloop, over_floor, met):
    found = results().measured("echo_protocol", over_floor=over_floor, uvloop=10.0, tokioloop=tokioloop)
    assert summary(found).met(ROWS["echo_protocol"]) is met


def test_turns_within_a_measurement_count_more_than_the_floors_own(results):
    found = results().measured("echo_protocol", over_floor=1.05, uvloop=20.0, tokioloop=10.0, floor=5.0)
    assert summary(found).over_floor(ROWS["echo_protocol"]) == 1.05


def test_a_target_with_a_part_not_measured_is_not_reached(results):
    found = summary(results().measured("echo_protocol", uvloop=20.0, tokioloop=10.0))
    assert found.met(ROWS["echo_protocol"]) is None
    assert found.shortfalls() == {}
    # The other part is missed whatever the floor is.
    found = summary(results().measured("echo_protocol", uvloop=10.0, tokioloop=20.0))
    assert found.met(ROWS["echo_protocol"]) is False


def test_a_row_without_a_target_is_neither_reached_nor_missed(results):
    found = summary(results().measured("new_loop_bytes", figure="bytes", uvloop=1.0, tokioloop=9.0))
    assert found.met(ROWS["new_loop_bytes"]) is None
    assert found.shortfalls() == {}


def test_ratios_are_medians_of_each_rounds_own(results):
    found = results()
    for number, (uvloop, tokioloop) in enumerate([(10.0, 5.0), (30.0, 10.0), (400.0, 100.0)]):
        found.measured("call_soon_chain", round=number, uvloop=uvloop, tokioloop=tokioloop)
    assert summary(found).times(ROWS["call_soon_chain"]) == 3.0
    assert summary(found).met(ROWS["call_soon_chain"]) is True


@pytest.mark.parametrize(("rloop", "short"), [(4.9, True), (5.0, False), (5.1, False)])
def test_a_rival_that_does_better_is_a_shortfall(results, rloop, short):
    found = summary(results().measured("call_soon_chain", uvloop=20.0, rloop=rloop, tokioloop=5.0))
    assert found.met(ROWS["call_soon_chain"]) is True
    assert found.beaten_by("call_soon_chain") == (["rloop"] if short else [])
    assert [v.wanted for v in found.shortfalls().get("call_soon_chain", [])] == (
        ["no worse than rloop"] if short else []
    )


def test_asyncio_and_aiofastnet_are_not_rivals(results):
    found = summary(results().measured("tls_echo", asyncio=1.0, aiofastnet=1.0, uvloop=20.0, tokioloop=5.0))
    assert found.shortfalls() == {}


def test_a_failure_of_tokioloop_is_a_shortfall_and_one_of_a_peer_is_none(results):
    found = results().measured("http", uvloop=5.0).failed("http", "tokioloop", "crashed with SIGSEGV")
    found.measured("udp_echo", over_floor=0.9, uvloop=9.0, tokioloop=4.0).failed("udp_echo", "rloop", "hung")
    assert [v.reached for v in summary(found).shortfalls()["http"]] == ["failed: crashed with SIGSEGV"]
    assert "udp_echo" not in summary(found).shortfalls()


def test_two_threads_are_held_against_uvloops_two_and_against_one(results):
    rate = {"uvloop": 100.0, "tokioloop": 400.0}
    found = results().measured("create_task", rate=rate, uvloop=10.0, tokioloop=2.5)
    twice = {"uvloop": 100.0, "tokioloop": 700.0}
    found.measured("create_task@2", rate=twice, uvloop=10.0, tokioloop=2.5)
    missed = summary(found).shortfalls()["create_task@2"]
    assert [(v.wanted, v.reached) for v in missed] == [("one thread's rate x 1.85", "x 1.750")]


def test_every_reason_is_a_rows_and_the_rest_is_said_to_be_unknown():
    assert set(WHY) - set(variants()) == set()
    assert why("gather_100k") == WHY["gather_100k"]
    assert why("tls_handshake") == UNKNOWN == "not profiled yet"


def test_a_target_names_all_its_parts():
    assert str(Target(times=2.4)) == "uvloop / 2.4"
    assert str(Target(times=1.0, than="tls_echo")) == "tls_echo / 1"
    assert str(Target(floor=1.0, below=4096)) == "floor x 1, < 4096"


def test_aiofastnet_runs_the_tls_rows_only():
    loops = list(peers.FACTORIES)
    ran = {split(name)[0].group for name in select("all") if "aiofastnet" in run._runners(name, loops)}
    assert ran == {"tls"}
    # What has rustls in it is tokioloop's alone.
    assert run._runners("tls_echo_rustls", loops) == ["tokioloop"]
