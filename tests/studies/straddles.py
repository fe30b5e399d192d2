"""`python -m tests.studies.straddles`: straddles sold on recorded chains, and how well each hedge does. Prints tables.

Reads options/deribit_chain_snapshots.parquet under --data (or $DEA_SHARED_DATA, or ../shared/data). A surface is fitted
to every chain, which takes most of the time.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from dea_daemon.pricing.surface.fit import fit
from dea_daemon.research.bootstrap import Interval
from dea_daemon.research.report_words import number
from dea_daemon.research.straddles import (
    Course,
    Panel,
    Policy,
    Sold,
    at_each_chain,
    book,
    deviation_beside,
    deviation_removed,
    mean_of,
    one_at_a_time,
    panel,
)
from dea_daemon.shell.chain_files import read_chains
from tests.studies.hedge_band import rows

FILE = "options/deribit_chain_snapshots.parquet"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
COINS, DAYS, SEED = ("BTC", "ETH"), (7, 30, 60), 20_260_430
BARE, BLACK, STICKY = Policy("not hedged", "none"), Policy("Black"), Policy("sticky moneyness", "sticky")
POLICIES = (
    BARE,
    BLACK,
    STICKY,
    Policy("Black, band ± .05", width=0.05),
    Policy("Black, band ± .1", width=0.1),
    Policy("Black, band ± .2", width=0.2),
    Policy("Black, allocator's band, γN 100", risk_aversion=100.0),
    Policy("sticky, band ± .1", "sticky", width=0.1),
)
WAYS = {"one at each chain": at_each_chain, "one at a time": one_at_a_time}

Books = dict[str, Course]  # by policy


def panels(file: Path, console: Console) -> dict[str, Panel]:
    """By coin. Tells how many surfaces were refused."""
    chains = [recorded.chain for recorded in read_chains(file, underlyings=COINS).chains]
    fitted = [fit(chain) for chain in track(chains, "surfaces", console=console, transient=True)]
    refused = sum(not each.smiles for each in fitted)
    console.print(f"{len(chains)} chains, {refused} surfaces refused", highlight=False)
    found = {}
    for coin in COINS:
        mine = [n for n, chain in enumerate(chains) if chain.underlying == coin]
        found[coin] = panel([chains[n] for n in mine], [fitted[n] for n in mine])
    return found


def books(told: Panel, sold: Sequence[Sold]) -> Books:
    return {policy.name: book(told, sold, policy) for policy in POLICIES}


# --- tables ----------------------------------------------------------------------------------------------


def in_percent(found: Interval, digits: int = 1, sign: bool = False) -> str:
    told = (number(100.0 * x, digits, sign) for x in (found.estimate, found.low, found.high))
    return "{} [{}, {}]".format(*told)


def hedges(found: dict[str, Books], of: Mapping[str, Sequence[Sold]]) -> Iterator[tuple[str, ...]]:
    """A line for each coin and policy; P&L in % of the premium, of a step."""
    yield "", "straddles, steps", "deviation", "removed, %", "mean of a step", "turnover", "cost"
    for coin, by_policy in found.items():
        bare = by_policy[BARE.name].pnl
        for name, one in by_policy.items():
            removed = "" if name == BARE.name else in_percent(deviation_removed(one.pnl, bare, seed=SEED))
            yield (
                f"{coin}, {name}",
                f"{len(of[coin])}, {len(bare)}" if name == BARE.name else "",
                number(100.0 * float(np.std(one.pnl, ddof=1)), 2),
                removed,
                in_percent(mean_of(one.pnl, seed=SEED), 2),
                number(float(np.mean(one.turnover)), 3),
                number(100.0 * float(np.mean(one.cost)), 3),
            )


def paired(found: dict[str, Books]) -> Iterator[tuple[str, str]]:
    """Sticky moneyness' deviation over Black's, less 1, in %; both coins where they have as many steps."""
    pnl = {coin: (by[STICKY.name].pnl, by[BLACK.name].pnl) for coin, by in found.items()}
    for coin, (sticky, plain) in pnl.items():
        yield coin, in_percent(deviation_beside(sticky, plain, seed=SEED), 1, sign=True)
    steps = min(len(sticky) for sticky, _ in pnl.values())
    both = (np.stack([pair[n][-steps:] for pair in pnl.values()]) for n in range(2))
    yield "both", in_percent(deviation_beside(*both, seed=SEED), 1, sign=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.straddles", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DEA_SHARED_DATA", BESIDE)))
    console = Console()
    told = panels(parser.parse_args().data / FILE, console)
    beside: list[tuple[str, ...]] = [("sticky over Black, deviation − 1, %", *COINS, "both")]
    for days in DAYS:
        for way, chosen in WAYS.items():
            sold = {coin: chosen(each, days) for coin, each in told.items()}
            found = {coin: books(each, sold[coin]) for coin, each in told.items()}
            console.print(f"\n{days} days, {way}\n", highlight=False)
            console.print(rows(*hedges(found, sold)), soft_wrap=True, markup=False, highlight=False)
            beside.append((f"{days} days, {way}", *(text for _, text in paired(found))))
    console.print("\n" + rows(*beside), soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
