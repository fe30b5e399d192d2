"""Recorded chains as Chains: one (snapshot, coin) at a time, as they stood."""

from datetime import datetime
from functools import cache

import numpy as np
import polars as pl

from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.surfaces import Chain
from tests.shared_data import shared

TICK_COINS = 1e-4


@cache
def _frame() -> pl.DataFrame:
    """What is quoted a day or more before its expiry."""
    return (
        pl.read_parquet(shared("options/deribit_chain_snapshots.parquet"))
        .with_columns(
            expiry_ns=pl.col("expiry_datetime").dt.timestamp("ns"), utc_ns=pl.col("snapshot").dt.timestamp("ns")
        )
        .filter(pl.col("expiry_ns") - pl.col("utc_ns") >= NS_PER_DAY)
    )


def snapshots() -> list[datetime]:
    """All there are, in order."""
    return sorted(_frame()["snapshot"].unique().to_list())


def recorded(snapshot: datetime, coin: str) -> Chain:
    """Each quote by its own forward, none aged."""
    rows = _frame().filter((pl.col("snapshot") == snapshot) & (pl.col("currency").cast(pl.String) == coin))
    forward = rows["underlying"].to_numpy()
    bid, ask = rows["bid_price"].to_numpy() * forward, rows["ask_price"].to_numpy() * forward
    call = rows["option_type"].cast(pl.String).str.to_lowercase().str.starts_with("c").to_list()
    return Chain(
        underlying=coin,
        utc_ns=int(rows["utc_ns"][0]),
        expiries=tuple(sorted(set(rows["expiry_ns"].to_list()))),
        expiry_ns=tuple(rows["expiry_ns"].to_list()),
        forward=tuple(forward.tolist()),
        strike=tuple(rows["strike"].to_list()),
        call=tuple(call),
        bid=tuple(np.where(bid > 0.0, bid, 0.0).tolist()),
        ask=tuple(np.where(ask > 0.0, ask, np.nan).tolist()),
        tick=tuple((TICK_COINS * forward).tolist()),
        age_s=(0.0,) * len(rows),
    )
