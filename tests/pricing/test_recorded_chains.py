"""A venue's own marks: each quote's price, delta and volatility, by ours from its forward, strike and time."""

import numpy as np
import polars as pl
import pytest

from dea_daemon.pricing import black
from dea_daemon.pricing.implied import implied_volatility, iv_uncertainty
from tests.shared_data import shared

COIN_ROUNDING = 1e-4  # marks of BTC and ETH options are given to four decimals


@pytest.fixture(scope="module")
def chain():
    path = shared("options/deribit_chain_snapshots.parquet")
    quotes = pl.read_parquet(path).filter(pl.col("time_to_maturity") > 1 / 365)
    return {
        "forward": quotes["underlying"].to_numpy(),
        "strike": quotes["strike"].to_numpy(),
        "tau": quotes["time_to_maturity"].to_numpy(),
        "iv": quotes["implied_volatility"].to_numpy(),
        "mark": quotes["mark_price"].to_numpy(),
        "delta": quotes["delta"].to_numpy(),
        "call": quotes["option_type"].cast(pl.String).str.to_lowercase().str.starts_with("c").to_numpy(),
    }


@pytest.fixture(scope="module")
def greeks(chain):
    return black.greeks(chain["forward"], chain["strike"], chain["tau"], chain["iv"], chain["call"])


def test_coin_prices_are_the_venue_s(chain, greeks):
    error = np.abs(black.coin_price(greeks.price, chain["forward"]) - chain["mark"])
    assert len(error) > 200_000
    assert np.median(error) <= 2e-5


def test_deltas_are_the_venue_s(chain, greeks):
    """Theirs has five decimals and was computed a moment apart from the forward that stands beside it."""
    assert np.median(np.abs(greeks.delta - chain["delta"])) <= 2e-4


def test_volatilities_from_marks_are_the_venue_s(chain, greeks):
    """Within what half a unit of the mark's fourth decimal is worth, for most; the rest is the forward's moment."""
    forward = chain["forward"]
    iv = implied_volatility(chain["mark"] * forward, forward, chain["strike"], chain["tau"], chain["call"])
    rounding = iv_uncertainty(COIN_ROUNDING * forward, greeks.vega)
    error = np.abs(iv - chain["iv"])
    known = rounding < 0.002  # where the rounded mark still says something
    assert known.mean() > 0.5
    assert np.isfinite(iv[known]).mean() > 0.999
    assert np.nanmedian(error[known]) <= 5e-4
    assert np.nanmedian(error / rounding) <= 1.0
    assert np.nanmean(error[known] <= (rounding + 1e-3)[known]) > 0.9


def test_only_marks_at_intrinsic_have_no_volatility(chain, greeks):
    forward, strike, call = chain["forward"], chain["strike"], chain["call"]
    iv = implied_volatility(chain["mark"] * forward, forward, strike, chain["tau"], call)
    intrinsic = np.maximum(np.where(call, forward - strike, strike - forward), 0.0) / forward
    assert (chain["mark"] <= intrinsic)[np.isnan(iv)].mean() > 0.999
    assert np.isnan(iv).mean() < 0.03
