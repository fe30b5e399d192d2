"""Scenarios: every knob of the simulated venue in one frozen record, and the named ones.

Times and rates say their unit; volatilities are annual fractions, basis points are of price. Fees, margins
and funding follow Deribit's shape; the numbers are round, not a copy of a dated rule book.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from dea_daemon.domain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Underlying:
    """One coin: where it starts and how it moves. jump_mean and jump_sd are log returns."""

    start_price: float
    annual_vol: float
    jump_mean: float = 0.0
    jump_sd: float = 0.004
    annual_basis: float = 0.06
    im_per_coin: float = 0.00005  # initial and maintenance margin rise by this per coin of position


_COINS: Mapping[str, Underlying] = MappingProxyType(
    {
        "BTC": Underlying(start_price=65_000.0, annual_vol=0.55),
        "ETH": Underlying(start_price=3_000.0, annual_vol=0.70, jump_sd=0.005, im_per_coin=0.000_002),
    }
)
_DEPOSITS: Mapping[str, float] = MappingProxyType({"BTC": 5.0, "ETH": 50.0, "USDC": 500_000.0})


@dataclass(frozen=True, slots=True)
class Scenario:
    """A market, its liquidity, and the venue's rules.

    The world moves on a grid of `step_ms`, counted from the start, whatever the slices of `advance`.
    """

    name: str
    # the index: log-normal variance around each coin's own, common and own jumps
    step_ms: int = 100
    coins: Mapping[str, Underlying] = field(default_factory=lambda: _COINS)
    correlation: float = 0.85
    vol_of_vol: float = 1.0  # sd of log variance in its stationary law
    vol_half_life_s: float = 3_600.0
    jumps_per_day: float = 4.0
    drift_per_hour: float = 0.0  # log return; a crash is a drift and jumps
    # premium of perpetuals and basis of dated futures over the index
    premium_mean_bp: float = 1.0
    premium_sd_bp: float = 2.0
    premium_half_life_s: float = 120.0
    premium_ema_s: float = 30.0  # the mark follows fair value by this
    premium_clip: float = 0.005  # and never leaves the index by more
    basis_sd: float = 0.01  # annualised
    basis_half_life_s: float = 14_400.0
    # background liquidity: USD at each level, levels a side, spacing and half spread in bp
    depth_levels: int = 15
    level_usd: float = 40_000.0
    level_gap_bp: float = 0.4
    half_spread_bp: float = 0.3
    dated_liquidity: float = 0.3  # of the perpetual's sizes and flow; spreads are wider by its inverse
    churn: float = 0.06  # chance per level and step of a new size
    refill: float = 0.25  # chance per level and step that an eaten one comes back
    spread_per_vol: float = 1.0  # half spread grows by (volatility over its own mean) to this power
    takers_per_s: float = 1.0  # a perpetual's aggressors, at mean volatility
    taker_usd_median: float = 3_000.0
    taker_usd_sigma: float = 1.5
    taker_reach_bp: float = 8.0
    # the venue's rules
    maker_fee: float = 0.0
    taker_fee: float = 0.0005
    price_band: float = 0.03  # a limit beyond mark by this is refused; a market order stops there
    orders_max: int = 1_000  # open ones of one account
    initial_margin: float = 0.02
    maintenance_margin: float = 0.01
    liquidation_fee: float = 0.0075
    liquidation_share: float = 0.25  # of the largest position, each step, until the margin holds
    funding_cap: float = 0.005  # of the 8 h rate
    funding_every_s: int = 3_600  # accrued funding becomes cash on these UTC multiples
    ticker_every_ms: int = 100
    index_every_ms: int = 200
    portfolio_every_ms: int = 1_000
    # dated futures: 0 means the calendar's (next Friday, quarter end), else the nearest ends this soon
    nearest_expiry_s: float = 0.0
    settlement_window_s: float = 1_800.0
    # options: a coin-settled chain a coin, a USDC-settled one of some coins; the nearest ends as the futures' does
    options: bool = True
    option_usdc_coins: tuple[str, ...] = ("BTC",)
    option_expiries: int = 4  # of a chain
    option_strikes: int = 15  # of an expiry; more as the index wanders off
    option_step_ms: int = 500  # between two looks at all of them, a multiple of step_ms
    option_ticker_ms: int = 1_000  # between two tickers of one; another share of them each step
    option_vol_premium: float = 1.05  # implied over the coin's own volatility
    option_level_sd: float = 0.06  # of the log level, of a week and nearer
    option_level_half_life_s: float = 1_800.0
    option_skew: float = -0.03  # of volatility, as a share, by one standard deviation of moneyness
    option_skew_sd: float = 0.015
    option_convexity: float = 0.08
    option_depth: int = 3  # levels a side
    option_level_usd: float = 150_000.0  # of underlying at a level at the money
    option_half_spread_points: float = 0.6  # of volatility at the money, wider in the wings and far out
    option_hedge_bp: float = 1.0  # of underlying, times delta, on top
    option_refill: float = 0.05  # chance per option and look that an eaten book comes back
    option_takers_per_s: float = 0.5  # of all chains together
    option_fee: float = 0.0003  # of the underlying
    option_fee_cap: float = 0.125  # and never more than this share of the premium, or of the payoff
    delivery_fee: float = 0.000_15  # of the underlying, at expiry
    option_margin: float = 0.15  # of the index for a short, less what it is out of the money
    option_margin_min: float = 0.10
    option_maintenance: float = 0.075
    option_band: float = 0.25  # of the mark, or
    option_band_points: float = 10.0  # of volatility, the wider
    deposits: Mapping[str, float] = field(default_factory=lambda: _DEPOSITS)
    # of the server, not of the pure venue: how long a reply takes
    latency_ms: float = 2.0
    latency_jitter_ms: float = 1.0


def _with_vol(scale: float, **changes: float) -> Mapping[str, Underlying]:
    return {name: replace(c, annual_vol=c.annual_vol * scale, **changes) for name, c in _COINS.items()}


_ALL = (
    Scenario("default"),
    Scenario("calm", coins=_with_vol(0.4), jumps_per_day=0.0, vol_of_vol=0.3, premium_sd_bp=0.5),
    Scenario(
        "volatile",
        coins=_with_vol(2.5, jump_sd=0.01),
        vol_of_vol=1.5,
        jumps_per_day=200.0,
        half_spread_bp=1.0,
        takers_per_s=4.0,
    ),
    Scenario(
        "crash",
        coins=_with_vol(4.0, jump_mean=-0.01, jump_sd=0.01),
        jumps_per_day=2_000.0,
        drift_per_hour=-0.10,
        premium_mean_bp=-20.0,
        premium_sd_bp=10.0,
        level_usd=4_000.0,
        half_spread_bp=3.0,
        refill=0.1,
        takers_per_s=6.0,
    ),
    Scenario("expiry", nearest_expiry_s=20.0, settlement_window_s=10.0),
    Scenario(
        "options",
        coins=_with_vol(1.5),
        jumps_per_day=100.0,
        nearest_expiry_s=25.0,
        settlement_window_s=10.0,
        option_takers_per_s=2.0,
    ),
    Scenario("funding", premium_mean_bp=40.0, premium_sd_bp=4.0, funding_every_s=5),
    Scenario(
        "margin",
        coins=_with_vol(2.0),
        initial_margin=0.10,
        maintenance_margin=0.05,
        deposits={"BTC": 0.05, "ETH": 1.0, "USDC": 3_000.0},
    ),
)
SCENARIOS: Mapping[str, Scenario] = MappingProxyType({scenario.name: scenario for scenario in _ALL})


def load(name: str) -> Scenario:
    """The scenario of that name. Raises ConfigError, listing the names."""
    if name not in SCENARIOS:
        raise ConfigError(f"no scenario {name!r}; there are {', '.join(sorted(SCENARIOS))}")
    return SCENARIOS[name]
