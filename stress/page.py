"""The report as one page that needs no other file: what each loop survived, then each scenario with its figures and charts."""

from html import escape
from typing import Any

from . import plot
from .progress import duration, quantity
from .run import LOOPS

# From best to worst.
ORDER = ("not offered", "passed", "failed", "hung", "crashed")
WORDS = {
    "passed": "passed",
    "failed": "failed",
    "hung": "hung",
    "crashed": "crashed",
    "not offered": "not offered",
}
Report = dict[str, Any]
Result = dict[str, Any]

STYLE = """
:root { color-scheme: light dark; --ground: #fdfdfc; --ink: #1d1f21; --soft: #62676d; --line: #e2e2de; --card: #fff;
  --tokioloop: #c0422a; --asyncio: #6f7a86; --uvloop: #2f6cae; --good: #2b7a4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181a; --ink: #e6e7e8; --soft: #9aa0a6; --line: #303438; --card: #1d2023;
  --tokioloop: #ee7a5f; --asyncio: #a3adb8; --uvloop: #6fa8e4; --good: #6cc28d; --bad: #f2857d; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1120px; padding: 40px 24px 80px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h1 { font-size: 26px; font-weight: 600; margin: 0 0 4px } h2 { font-size: 18px; font-weight: 600; margin: 48px 0 2px }
h2 a { color: inherit; text-decoration: none } p { margin: 4px 0 } .soft { color: var(--soft) } small { font-size: 13px }
code, pre { font: 12.5px/1.5 ui-monospace, monospace } pre { overflow-x: auto; padding: 12px; margin: 8px 0; max-height: 420px;
  background: var(--card); border: 1px solid var(--line); border-radius: 4px }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 12px 0; width: 100% }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 500; color: var(--soft); font-size: 13px } td.number, th.number { text-align: right }
tbody th { color: var(--ink); font-size: 15px } td a, th a { color: inherit; text-decoration-color: var(--line) }
.passed { color: var(--good) } .failed, .hung, .crashed { color: var(--bad); font-weight: 600 } .not-offered { color: var(--soft) }
.tokioloop { --c: var(--tokioloop) } .asyncio { --c: var(--asyncio) } .uvloop { --c: var(--uvloop) }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; background: var(--c); margin-right: 7px }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 18px; margin: 14px 0 }
figure { margin: 0 } figcaption { font-size: 13px; color: var(--soft) } svg { display: block; width: 100%; height: auto }
svg path.trace { fill: none; stroke: var(--c); stroke-width: 1.6; stroke-linejoin: round } svg .hit { fill: transparent }
svg .hit:hover { fill: var(--c) } svg line { stroke: var(--line) } svg text { fill: var(--soft); font: 11px system-ui, sans-serif }
details { margin: 6px 0 } summary { cursor: pointer } summary:focus-visible, a:focus-visible { outline: 2px solid var(--uvloop) }
"""


def loops_of(report: Report) -> list[str]:
    """The loops that ran, tokioloop first."""
    found = {result["loop"] for result in report["results"]}
    return [loop for loop in LOOPS if loop in found]


def by_scenario(report: Report) -> dict[str, dict[str, list[Result]]]:
    """Scenario -> loop -> its results, in the order they came."""
    sorted_: dict[str, dict[str, list[Result]]] = {}
    for result in report["results"]:
        sorted_.setdefault(result["scenario"], {}).setdefault(result["loop"], []).append(result)
    return sorted_


def worst(results: list[Result]) -> Result:
    return max(results, key=lambda result: ORDER.index(result["status"]))


def page(report: Report) -> str:
    """The whole page. Text that came from a scenario is escaped."""
    body = [
        *_head(report),
        *_matrix(report),
        *(line for name, found in by_scenario(report).items() for line in _scenario(name, found)),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>tokioloop under stress</title><style>{STYLE}</style></head><body><main>",
            *body,
            "</main></body></html>",
            "",
        ]
    )


def _head(report: Report) -> list[str]:
    lines = ["<h1>Event loops under stress</h1>"]
    for run in report["runs"]:
        versions = ", ".join(f"{loop} {version}" for loop, version in run["loops"].items())
        lines.append(
            f'<p class="soft"><small>{escape(run["began"])}: CPython {escape(run["python"])}, GIL {run["gil"]}, {run["cores"]} cores, '
            f"{escape(run['system'])}; {escape(versions)}<br><code>{escape(run['command'])}</code></small></p>"
        )
    return lines


def _matrix(report: Report) -> list[str]:
    """What survived: a row a scenario, a column a loop."""
    loops = loops_of(report)
    head = "".join(f'<th scope="col" class="{loop}"><span class="dot"></span>{loop}</th>' for loop in loops)
    lines = [
        '<div class="wide"><table aria-label="what each loop survived">',
        f'<thead><tr><th scope="col">Scenario</th>{head}</tr></thead><tbody>',
    ]
    for name, found in by_scenario(report).items():
        cells = "".join(f"<td>{_survived(found.get(loop, []))}</td>" for loop in loops)
        lines.append(f'<tr><th scope="row"><a href="#{escape(name)}">{escape(name)}</a></th>{cells}</tr>')
    sums = []
    for loop in loops:
        results = [result for result in report["results"] if result["loop"] == loop]
        counts = [
            (status, sum(it["status"] == status for it in results)) for status in ("passed", *ORDER[2:])
        ]
        sums.append("<td>" + ", ".join(f"{count} {status}" for status, count in counts if count) + "</td>")
    lines.append(f'<tr class="soft"><th scope="row">in all</th>{"".join(sums)}</tr>')
    return [*lines, "</tbody></table></div>"]


def _survived(results: list[Result]) -> str:
    if not results:
        return '<span class="soft">-</span>'
    result = worst(results)
    status = result["status"]
    same = sum(it["status"] == status for it in results)
    text = WORDS[status] + (f" {same} of {len(results)}" if len(results) > 1 else "")
    title = escape((result["problems"] or result.get("notes") or [""])[0][-600:].strip(), quote=True)
    return f'<span class="{status.replace(" ", "-")}" title="{title}">{text}</span>'


FIGURES: list[tuple[str, Any]] = [
    ("operations", lambda it: quantity(it["ops"])),
    ("a second", lambda it: quantity(it["ops"] / it["seconds"])),
    ("p50", lambda it: _duration(it["p50"])),
    ("p99", lambda it: _duration(it["p99"])),
    ("longest", lambda it: _duration(it["most"])),
    ("CPU", lambda it: f"{it['cpu']:.1f} s"),
    ("RSS after warm-up, end, peak", lambda it: _memory(it)),
    ("fds, threads at most", lambda it: f"{_most(it, 5)}, {_most(it, 6)}"),
]


def _scenario(name: str, found: dict[str, list[Result]]) -> list[str]:
    last = [found[loop][-1] for loop in LOOPS if loop in found]
    head = "".join(f'<th scope="col" class="number">{title}</th>' for title, _ in FIGURES)
    lines = [
        f'<section id="{escape(name)}"><h2><a href="#{escape(name)}">{escape(name)}</a></h2>',
        f'<div class="wide"><table aria-label="figures of {escape(name)}"><thead><tr>'
        f'<th scope="col">Loop</th><th scope="col">Outcome</th>{head}</tr></thead><tbody>',
    ]
    for result in last:
        known = "seconds" in result
        cells = "".join(
            f'<td class="number">{figure(result) if known else "-"}</td>' for _, figure in FIGURES
        )
        loop, status = result["loop"], result["status"]
        lines.append(
            f'<tr class="{loop}"><th scope="row"><span class="dot"></span>{loop}</th>'
            f'<td class="{status.replace(" ", "-")}">{WORDS[status]}</td>{cells}</tr>'
        )
    lines.append("</tbody></table></div>")
    if drawn := plot.charts(last):
        lines.append(f'<div class="charts">{"".join(drawn)}</div>')
    for results in found.values():
        for result in results:
            lines += _details(result)
    return [*lines, "</section>"]


def _details(result: Result) -> list[str]:
    """Notes and counts in short; what went wrong in full."""
    bad = result["status"] not in ("passed", "not offered")
    said = []
    if result.get("counts"):
        said.append(", ".join(f"{escape(what)} {count:,}" for what, count in result["counts"].items()))
    said += [escape(note) for note in result.get("notes", [])]
    lines = [f"<p><small>{'. '.join(said)}.</small></p>"] if said else []
    lines += [f"<pre>{escape(problem.strip())}</pre>" for problem in result["problems"]]
    for title, text in (("all threads' stacks", result["stacks"]), ("output, its end", result["output"])):
        if text.strip():
            lines.append(f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>")
    lines.append(f"<p><small>Again: <code>{escape(result['command'])}</code></small></p>")
    title = f"{result['loop']}: {WORDS[result['status']]}, seed {result['seed']}"
    return [
        f'<details{" open" if bad else ""}><summary class="soft">{title}</summary>',
        *lines,
        "</details>",
    ]


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _memory(result: Result) -> str:
    if "after" not in result:
        return "-"
    return f"{result['before']['rss'] >> 20}, {result['after']['rss'] >> 20}, {_most(result, 4) >> 20} MiB"


def _most(result: Result, column: int) -> int:
    return max((sample[column] for sample in result["samples"]), default=0)
