"""`python -m tests.studies.hedge_band`: is the no-trade band worth it? Writes docs/hedge-band.svg and its tables.

The tables go between the marks of docs/allocator.md. `--quick` runs 400 paths instead of 4,000, and writes nothing.
"""

import argparse
import re
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from dea_daemon.research.hedging import (
    Figures,
    Outcome,
    Policy,
    Sold,
    World,
    by_the_band,
    by_the_clock,
    cost_beside,
    figures,
    run,
)
from tests.studies.chart import Axis, Curve, svg

DOCS = Path(__file__).resolve().parents[2] / "docs"
SEED = 20_240_101
PATHS, QUICK = 4_000, 400
AVERSIONS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000)
SHOWN = (3, 10, 30, 100, 300)
WIDTHS = (0.01, 0.02, 0.05, 0.1)
BANDS = tuple(f"band {a:g}" for a in AVERSIONS)
ZAKAMOULINE = Policy("Zakamouline", modified=True)
HALF, ALL = Policy("to half of it", inner=0.5), Policy("to the delta", inner=0.0)
LOTS = (0.001, 0.01, 0.1)

JUMPS = 50.0  # a year, each of 5 % in standard deviation, and so little between them that all is 60 % a year
JUMP_VOL = 0.05
WORLDS: dict[str, tuple[World, Sold]] = {
    "a call, 5 bp": (World(), Sold()),
    "1 bp": (World(), Sold(cost=1e-4)),
    "10 bp": (World(), Sold(cost=1e-3)),
    "a straddle": (World(), Sold(puts=1.0)),
    "7 days": (World(days=7.0), Sold()),
    "volatility 80 %, sold and hedged at 60 %": (World(annual_vol=0.80), Sold()),
    "50 jumps of 5 % a year, 60 % in all": (
        World(annual_vol=float(np.sqrt(0.36 - JUMPS * JUMP_VOL**2)), jumps_a_year=JUMPS, jump_vol=JUMP_VOL),
        Sold(),
    ),
    "looked at every 5 minutes": (World(steps_a_day=288), Sold()),
}
BASE = "a call, 5 bp"


def policies(world: World, sold: Sold, base: bool) -> tuple[Policy, ...]:
    """By the clock and by the band; in the `base` world also all that the band is compared with."""
    common = (*by_the_clock(world.steps_a_day), *by_the_band(sold, AVERSIONS))
    if not base:
        return common
    lots = tuple(Policy(f"lots of {lot:g},", lot=lot) for lot in LOTS)
    fixed = tuple(Policy(f"fixed {width:g}", width=width) for width in WIDTHS)
    kinds = [one for kind in (HALF, ALL, *lots) for one in by_the_band(sold, SHOWN, kind)]
    return (*common, *fixed, *by_the_band(sold, (3, 10, 30, 100), ZAKAMOULINE), *kinds)


def outcomes(paths: int, console: Console) -> dict[str, Outcome]:
    worlds = track(WORLDS.items(), "worlds", console=console, transient=True)
    return {
        name: run(world, sold, policies(world, sold, name == BASE), paths=paths, seed=SEED)
        for name, (world, sold) in worlds
    }


# --- tables ----------------------------------------------------------------------------------------------


def number(share: float) -> str:
    """Of the premium, without the zero in front."""
    return f"{share:.4f}".removeprefix("0") if share < 0.0995 else f"{share:.3f}".removeprefix("0")


def with_error(share: float, error: float) -> str:
    return f"{number(share)} ± {f'{error:.4f}'.removeprefix('0')}"


def rows(*lines: tuple[str, ...]) -> str:
    head, *body = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *body))


def base_table(outcome: Outcome) -> str:
    of = figures(outcome)
    names = ("every step", "hourly", "every 6 hours", "daily", *(f"band {a}" for a in SHOWN))
    names += ("Zakamouline 10", "Zakamouline 30", "Zakamouline 100")
    lines = [("when", "deviation", "cost", "distance from delta, coins", "trades")]
    for name in names:
        r = outcome.row(name)
        told = (
            "every 15 minutes"
            if name == "every step"
            else name.replace("band ", "band, γN ").replace("line ", "line, γN ")
        )
        cells = (with_error(of.deviation[r], of.deviation_error[r]), with_error(of.cost[r], of.cost_error[r]))
        lines.append((told, *cells, number(outcome.gap_coins[r]), f"{outcome.trades[r]:.0f}"))
    return rows(*lines)


def share(outcome: Outcome, name: str, others: tuple[str, ...] = BANDS) -> str:
    """The others' cost at the same deviation, % of the policy's, with its error; — where they do not stray so."""
    ratio, error = cost_beside(outcome, name, others, seed=SEED)
    return f"{100 * ratio:.0f} ± {max(100 * error, 1):.0f} %" if np.isfinite(ratio) and np.isfinite(error) else "—"


def pair(of: Figures, r: int) -> str:
    return f"{number(of.deviation[r])} / {number(of.cost[r])}"


def worlds_table(found: dict[str, Outcome]) -> str:
    against = {"hourly": "hourly", "every 6 hours": "six-hourly", "daily": "daily"}
    beside = (f"band's cost over {told}" for told in against.values())
    lines = [("", "hourly", "six-hourly", "band, γN 100", *beside)]
    for name, outcome in found.items():
        of = figures(outcome)
        cells = (pair(of, outcome.row(one)) for one in ("hourly", "every 6 hours", "band 100"))
        lines.append((name, *cells, *(share(outcome, one) for one in against)))
    return rows(*lines)


def variants_table(outcome: Outcome) -> str:
    """What each way of trading costs beside the formula's band at the same deviation."""
    of = figures(outcome)
    named = {
        "the edge, γN 100": "band 100",
        "half of the band, γN 30": "to half of it 30",
        "half of the band, γN 100": "to half of it 100",
        "the delta, γN 30": "to the delta 30",
        "the delta, γN 100": "to the delta 100",
        **{f"the edge, γN 100, in lots of {lot:g} coins": f"lots of {lot:g}, 100" for lot in LOTS},
        **{f"the edge of ± {width:g} coins": f"fixed {width:g}" for width in WIDTHS},
        **{f"the edge of Zakamouline's, γN {aversion}": f"Zakamouline {aversion}" for aversion in (10, 30, 100)},
    }
    lines = [("traded to", "deviation / cost", "trades", "formula's cost over this")]
    for told, name in named.items():
        r = outcome.row(name)
        beside = "100 %" if name == "band 100" else share(outcome, name)
        lines.append((told, pair(of, r), f"{outcome.trades[r]:.0f}", beside))
    return rows(*lines)


def tables(found: dict[str, Outcome]) -> dict[str, str]:
    """By the mark that they stand under."""
    base = found[BASE]
    return {"hedge-base": base_table(base), "hedge-worlds": worlds_table(found), "hedge-variants": variants_table(base)}


# --- picture ---------------------------------------------------------------------------------------------


def picture(outcome: Outcome) -> str:
    """Cost against deviation, % of the premium: the further down and left the better."""
    of = figures(outcome)

    def curve(name: str, ink: str, names: list[str], labels: list[str], side: str, dashed: bool = False) -> Curve:
        at = [outcome.row(one) for one in names]
        return Curve(name, ink, 100.0 * of.deviation[at], 100.0 * of.cost[at], labels, side, dashed)

    clock = ["every step", "hourly", "every 3 hours", "every 6 hours", "every 12 hours", "daily"]
    bands = [f"band {a}" for a in (3, 10, 30, 100, 300, 1000)]
    curves = [
        curve("by the clock", "amber", clock, ["15 min", "1 h", "3 h", "6 h", "12 h", "1 d"], "right"),
        curve("band of fixed width", "green", [f"fixed {w:g}" for w in WIDTHS], [""] * len(WIDTHS), "right", True),
        curve("the daemon's band", "blue", bands, [name.replace("band", "γN") for name in bands], "left"),
    ]
    x = Axis("standard deviation of the hedged result, % of the premium", 2.5, 25.0, (3, 4, 5, 7, 10, 15, 20))
    y = Axis("mean cost, % of the premium", 0.8, 15.0, (1, 1.5, 2, 3, 5, 7, 10))
    about = "A 30-day call sold at 60 % and hedged at 5 bp, 4,000 paths. Standard errors are smaller than the dots."
    return svg("What a hedge costs, and how far it strays", about, x, y, curves)


def written(page: str, tables_by_mark: dict[str, str]) -> str:
    """`page` with each table between its two marks. Raises ValueError where one is missing."""
    for mark, text in tables_by_mark.items():
        between = re.compile(f"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
        match = between.search(page)
        if match is None:
            raise ValueError(f"the page has no marks of {mark}")
        page = f"{page[: match.end(1)]}{text}\n{page[match.start(2) :]}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.hedge_band", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} paths, shown and not written")
    quick = parser.parse_args().quick
    console = Console()
    found = outcomes(QUICK if quick else PATHS, console)
    by_mark = tables(found)
    for text in by_mark.values():
        console.print(text + "\n", soft_wrap=True, markup=False, highlight=False)
    if not quick:
        page = DOCS / "allocator.md"
        page.write_text(written(page.read_text(), by_mark))
        (DOCS / "hedge-band.svg").write_text(picture(found[BASE]))


if __name__ == "__main__":
    main()
