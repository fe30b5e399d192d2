"""What pictures of a daemon are made of: figures as text, bars, colours. Every text that comes from elsewhere passes
`fit`, which lets no control character through.
"""

import time
from collections.abc import Iterable
from io import StringIO
from math import isfinite
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from rich.console import RenderableType

Status = dict[str, Any]
WIDTH = 150  # cells, where text goes to no terminal
Span = tuple[str, str]  # text, style
Line = list[Span]

GREEN, YELLOW, RED, DIM, BOLD = "green", "yellow", "red", "bright_black", "bold"


def plain(value: Any) -> str:
    """Escaped where it is not plain text: it must not be able to move the cursor."""
    words = value if isinstance(value, str) else str(value)
    return words if words.isprintable() else repr(words)


def fit(text: str, width: int, right: bool = False) -> str:
    """Exactly `width` cells, cut with … where it is longer."""
    text = plain(text)
    cells = len(text) if text.isascii() else cell_len(text)
    if cells > width:
        return set_cell_size(text, max(width - 1, 0)) + "…"[:width]
    return " " * (width - cells) + text if right else text + " " * (width - cells)


def number(amount: Any, digits: int = 0) -> str:
    """With thousands apart; - where it is not known."""
    return f"{amount:,.{digits}f}" if finite(amount) else "-"


def price(value: Any) -> str:
    """As short as it is exact; what is text already stays."""
    return value if isinstance(value, str) else f"{value:,.10g}" if finite(value) else "-"


def prices(bid: Any, ask: Any, mark: Any) -> list[str]:
    """Prices of one contract, with as many decimals as its quotes have."""
    decimals = [len(f"{quote:.10g}".partition(".")[2]) for quote in (bid, ask) if finite(quote)]
    return [number(value, max(decimals, default=2)) for value in (bid, ask, mark)]


def amount(value: Any) -> str:
    """Dollars whole, counts and fractions with three figures."""
    return number(value) if not finite(value) or abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def percent(value: Any, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %" if finite(value) else "-"


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def age(seconds: Any) -> str:
    """Tenths of a second below ten, then coarser."""
    if not finite(seconds):
        return "-"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds) if seconds >= 100 else f"{seconds:.0f} s"


def duration(seconds: Any) -> str:
    """h:mm:ss."""
    if not finite(seconds):
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def time_of_day(utc_ns: Any) -> str:
    """Of day, UTC, as in the log."""
    return time.strftime("%H:%M:%S", time.gmtime(utc_ns / 1e9)) if finite(utc_ns) else "-"


def light(good: bool) -> Span:
    return ("●", GREEN) if good else ("○", YELLOW)


def side_style(side: Any) -> str:
    return GREEN if side == "buy" else RED if side == "sell" else ""


def listed(status: Status, key: str) -> list[dict[str, Any]]:
    return status.get(key) or []


def merged(cells: Iterable[Span]) -> Line:
    """Neighbours of one style as one span."""
    line: Line = []
    for text, style in cells:
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + text, style)
        else:
            line.append((text, style))
    return line


# --- bars -----------------------------------------------------------------------------------------------------------


def exposure_style(held: float | None, wanted: float | None, band: float | None) -> str:
    """Green inside the band, yellow outside, plain where there is no target."""
    if held is None or wanted is None or band is None:
        return ""
    return GREEN if abs(held - wanted) <= band else YELLOW


def band_bar(held: float | None, wanted: float | None, band: float | None, width: int) -> Line:
    """Where the held exposure (●) lies against wanted (│) ± band (━). It always lies on the bar: the scale gives."""
    if held is None or wanted is None or band is None:
        return [(fit("no target", width), DIM)]
    half = max(2 * band, 1.05 * abs(held - wanted), 1e-9)

    def place(amount: float) -> int:
        share = (amount - wanted + half) / (2 * half)
        return min(max(round(share * (width - 1)), 0), width - 1)

    low, middle, high, at = (place(amount) for amount in (wanted - band, wanted, wanted + band, held))
    cells = [("━", GREEN) if low <= i <= high else ("─", DIM) for i in range(width)]
    cells[middle] = ("│", BOLD)
    cells[at] = ("●", f"bold {exposure_style(held, wanted, band)}")
    return merged(cells)


def share(use: dict[str, Any]) -> float:
    """How much of a limit is used; all of it where that is not known (the guards think so too)."""
    used, allowed = use["used"], use["allowed"]
    return abs(used) / allowed if finite(used) and finite(allowed) and allowed > 0 else 1.0


def limit_style(used: float) -> str:
    """Red from 90 %, yellow from 70 %."""
    return RED if used >= 0.9 else YELLOW if used >= 0.7 else GREEN


def limit_bar(used: float, width: int) -> Line:
    """Filled from the left; anything at all shows."""
    filled = min(max(round(used * width), 1 if used > 0 else 0), width)
    return [("█" * filled, limit_style(used)), ("░" * (width - filled), DIM)]


def as_text(parts: Iterable["RenderableType"], *, on_terminal: bool) -> str:
    """Tables and words as text, in colours and as wide as the screen where it goes to a terminal."""
    from rich.console import Console  # slow to import, and most who want a figure print no table

    width = None if on_terminal else WIDTH
    console = Console(file=StringIO(), force_terminal=on_terminal, width=width, highlight=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))
