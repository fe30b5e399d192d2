"""What a person reads before and after a run."""

from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_EXPOSURE = ("underlying", "held", "wanted", "± band", "")
_GREEKS = {
    "": "",
    "gamma per 1 %": "gamma_usd_1pct",
    "vega per point": "vega_usd_1pt",
    "theta per day": "theta_usd_day",
}

_INTRODUCTION = """\
A simulated Deribit on this machine (scenario {scenario}, seed {seed}); the daemon trades there for {seconds:g} s.
Each decision shows, in USD, exposure held → wanted ± band, and below it the orders it sent.
From another terminal: dea-daemon status --socket {socket}    (top, explain, pause, resume, halt, …)
"""


def introduce(scenario: str, seed: int, seconds: float, socket: Path) -> None:
    """What a demo is about to show, to stderr, before its log; nothing where nobody looks."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        told = _INTRODUCTION.format(scenario=scenario, seed=seed, seconds=seconds, socket=socket)
        console.print(told, soft_wrap=True)


def show(finished: dict[str, Any]) -> None:
    """Print what `run.finished` says."""
    console = Console(highlight=False)
    exposure = Table(title="Exposure at the end, USD", title_justify="left")
    for name in _EXPOSURE:
        exposure.add_column(name, justify="left" if name in ("underlying", "") else "right")
    for underlying, line in finished["exposure"].items():
        figures = (_usd(line[key]) for key in ("actual_usd", "target_usd", "band_usd"))
        exposure.add_row(underlying, *figures, _inside(line))
    console.print(exposure)
    if finished.get("greeks"):
        console.print(_greeks(finished["greeks"]))
    run = Table(show_header=False, box=None)
    for name, text in _lines(finished):
        run.add_row(name, text)
    console.print(run)
    console.print(_verdict(finished))


def _greeks(greeks: dict[str, dict[str, Any]]) -> Table:
    """What options added."""
    table = Table(title="Options at the end, USD", title_justify="left")
    for name in _GREEKS:
        table.add_column(name, justify="right" if name else "left")
    for underlying, line in greeks.items():
        table.add_row(underlying, *(_usd(line[key], 2) for key in _GREEKS.values() if key))
    return table


def _inside(line: dict[str, float]) -> str:
    if not isfinite(line["band_usd"]):
        return "no target"
    inside = abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"]
    return "[green]inside[/]" if inside else "[red]outside[/]"


def _verdict(finished: dict[str, Any]) -> str:
    """In one line: did it end where it should?"""
    wrong = []
    if any(_inside(line) == "[red]outside[/]" for line in finished["exposure"].values()):
        wrong.append("outside its band")
    if finished["open_orders"]:
        wrong.append(f"{finished['open_orders']} orders still open")
    if not finished["reconciled"]:
        wrong.append("not reconciled with the venue")
    if finished["limits_breached"]:
        wrong.append(f"limits breached in {finished['limits_breached']:,} measurements")
    if wrong:
        return f"[bold red]Ended {', '.join(wrong)}.[/]"
    return "[bold green]Ended on target: no open orders, reconciled with the venue, no limit breached.[/]"


def _lines(finished: dict[str, Any]) -> list[tuple[str, str]]:
    latency, said = finished["event_to_order_us"], {name: f"{n:,}" for name, n in finished.items() if type(n) is int}
    orders = "{orders_sent} sent, {cancels_sent} cancelled, {rejects} rejected, {unknown_outcomes} of unknown outcome"
    fills = f"{said['fills']}, fees {_usd(finished['fees_usd'], 2)} USD, funding {_usd(finished['funding_usd'], 2)} USD"
    lines = [
        ("decisions", said["decisions"]),
        ("orders", orders.format_map(said)),
        ("fills", fills),
        ("equity", f"{_usd(finished['equity_usd'], 2)} USD"),
        ("event to order", f"{_usd(latency['p50'])} µs median, {_usd(latency['p99'])} µs p99"),
    ]
    if "events_per_s" in finished:
        recording = "{events} events, {events_per_s} a second, {gaps} gaps, {crossed_books} crossed books"
        lines.append(("recording", recording.format_map(said)))
    return lines


def _usd(amount: float | None, digits: int = 0) -> str:
    return "-" if amount is None or not isfinite(amount) else f"{amount:,.{digits}f}"
