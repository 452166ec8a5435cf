"""Made-up results of a run, as `results.json` and `growth.json` hold them."""

from __future__ import annotations

import pytest


class Results:
    """A document that grows by `measured` and `failed`."""

    def __init__(self, python="3.13.9", free_threaded=True):
        self.document = {
            "environment": {
                "python": python,
                "free_threaded": free_threaded,
                "system": "Linux 6.0",
                "cpu": "An Example Processor",
                "cores": 2,
                "load_average": [0.25, 0.2, 0.1],
                "date": "2026-01-02 03:04",
            },
            "plan": {"rounds": 2, "seconds": 0.5, "limit": 150.0},
            "peers": {
                "asyncio": {"present": True, "version": "", "gil": False, "why": ""},
                "uvloop": {"present": True, "version": "0.77", "gil": False, "why": ""},
                "rloop": {"present": True, "version": "0.66", "gil": False, "why": ""},
                "zuvloop": {"present": False, "version": "", "gil": False, "why": "no module"},
                "tokioloop": {"present": True, "version": "0.55", "gil": False, "why": ""},
            },
            "measurements": [],
            "failures": [],
            "left_out": [],
        }

    def measured(self, row, *, round=0, over_floor=None, rate=None, figure="cpu_us", **figures):
        for loop, value in figures.items():
            found = {"row": row, "loop": loop, "round": round, "threads": 1, figure: value}
            if loop == "tokioloop" and over_floor is not None:
                found["over_floor"] = over_floor
            if rate is not None:
                found["rate"] = rate[loop]
            self.document["measurements"].append(found)
        return self

    def failed(self, row, loop, why):
        self.document["failures"].append({"row": row, "loop": loop, "round": 0, "why": why})
        return self


@pytest.fixture
def results():
    return Results
