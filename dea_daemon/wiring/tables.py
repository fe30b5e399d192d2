"""A run's end for people: one table."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(finished: dict[str, Any]) -> None:
    """Print what `run.finished` says."""
    console = Console()
    exposure = Table(title="Exposure at the end, USD", title_justify="left")
    for name in ("underlying", "target", "± band", "actual", "inside"):
        exposure.add_column(name, justify="left" if name == "underlying" else "right")
    for underlying, line in finished["exposure"].items():
        inside = abs(line["actual_usd"] - line["target_usd"]) <= line["band_usd"]
        figures = (f"{line[key]:,.0f}" for key in ("target_usd", "band_usd", "actual_usd"))
        exposure.add_row(underlying, *figures, "yes" if inside else "no")
    console.print(exposure)
    run = Table(show_header=False, box=None)
    for name, text in _lines(finished):
        run.add_row(name, text)
    console.print(run)


def _lines(finished: dict[str, Any]) -> list[tuple[str, str]]:
    latency = finished["event_to_order_us"]
    return [
        ("decisions", f"{finished['decisions']:,}"),
        ("orders", f"{finished['orders_sent']:,} sent, {finished['fills']:,} fills, {finished['rejects']:,} rejected, "
                   f"{finished['unknown_outcomes']:,} unknown, {finished['open_orders']:,} still open"),
        ("limits breached", f"{finished['limits_breached']:,}"),
        ("reconciled", "yes" if finished["reconciled"] else "no"),
        ("equity", f"{finished['equity_usd']:,.2f} USD, fees {finished['fees_usd']:,.2f}, "
                   f"funding {finished['funding_usd']:,.2f}"),
        ("event to order", f"{latency['p50']:,.0f} µs median, {latency['p99']:,.0f} µs p99"),
    ]  # fmt: skip
