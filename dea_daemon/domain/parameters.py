"""Everything the core may be told, with units and bounds: the part of the configuration replay needs.

Parameters travel in RunStarted as JSON, so a tape carries its own configuration. `shell/settings.py`
adds what only the outside needs (URLs, files, throttles).
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """Frozen, and an unknown key is an error: a mistyped limit must not vanish."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StateParameters(Section):
    """What counts as known, and for how long."""

    stale_book_ms: int = Field(2_000, gt=0, description="a book or quote older than this is stale")
    stale_mark_ms: int = Field(5_000, gt=0, description="a mark or index price older than this is stale")
    stale_account_ms: int = Field(15_000, gt=0, description="an account report older than this is stale")
    stale_option_ms: int = Field(
        15_000, gt=0, description="an option's quote, mark or Greeks older than this are stale"
    )
    flow_half_life_s: Positive = Field(
        60.0, description="of order-flow and trade imbalance, and of the mid's realised variance"
    )
    variance_every_s: Positive = Field(1.0, description="sampling interval of that variance, no finer than the tick")
    relist_every_s: Positive = Field(600.0, description="how often a venue is asked for new contracts, unless it told")
    stale_private_ms: int = Field(20_000, gt=0, description="a private stream silent for this long is dead")
    stable_currencies: tuple[str, ...] = Field(("USD", "USDC", "USDT"), description="currencies taken at 1 USD")


class SurfaceParameters(Section):
    """When the volatility surface of an underlying is fitted, and for how long it is believed."""

    enabled: bool = Field(True, description="fit one for each underlying whose options are followed")
    every_s: Positive = Field(5.0, description="how often")
    move: Fraction = Field(0.005, description="or sooner, once the index has moved by this since the last")
    at_most_every_s: Positive = Field(1.0, description="but never sooner than this")
    answer_s: Positive = Field(30.0, description="a fit that has not come back by then is asked for again")
    stale_s: Positive = Field(300.0, description="older than this it is no longer relied upon: no new vega risk")
    jump_z: Positive = Field(
        8.0,
        description="a surface so many standard deviations of its usual changes from the last is not relied upon "
        "until the next agrees with it",
    )


class PricingParameters(Section):
    """How options are valued, and when the venue's own figures contradict ours."""

    smile_delta: Literal["black", "sticky_moneyness"] = Field(
        "black", description="sticky_moneyness adds what the smile's slope does to an option as the underlying moves"
    )
    delta_convention: Literal["premium_adjusted", "black"] = Field(
        "premium_adjusted",
        description="coin options: premium_adjusted beside equity, or black beside cash; the totals are the same",
    )
    settlement_window_s: Positive = Field(1_800.0, description="the settlement price averages the index over this")
    surface: SurfaceParameters = SurfaceParameters()
    forward_tolerance: Fraction = Field(
        0.01, description="future, put-call parity and the venue may name forwards this far apart"
    )
    max_iv_spread: Positive = Field(0.5, description="quotes further apart than this in volatility give none")
    keep_iv_s: Positive = Field(600.0, description="an implied volatility without fresh successor is kept this long")
    greeks_tolerance: Positive = Field(
        0.02,
        description="the venue's delta of an option may be this far from ours (and its vega by five times as much)",
    )
    greeks_off_ms: int = Field(3_000, gt=0, description="further than that for this long: its Greeks are in doubt")
    pin_hours: NonNegative = Field(1.0, description="an option this close to its expiry")
    pin_band: Annotated[float, Field(ge=0, le=1)] = Field(
        0.005, description="and its forward this close to its strike, as a fraction: pinned"
    )


class ReturnView(Section):
    """An operator's own expectation of an underlying, a signal like any other."""

    annual_return: Finite = Field(description="expected excess return a year, funding and basis not counted")
    half_life_days: Positive | None = Field(None, description="it fades by half in so long, and is weighed less for it")


ForecasterName = Literal[
    "prior_1d", "carry_1d", "momentum_1d", "ridge_1d", "trees_1d",
    "prior_5d", "carry_5d", "momentum_5d", "ridge_5d", "trees_5d",
]  # fmt: skip
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TreeParameters(Section):
    """Boosted trees (LightGBM, extra `research`), grown aside from what the run has seen."""

    enabled: bool = Field(False, description="trees forecast, too")
    every_days: Annotated[float, Field(ge=1, le=365)] = Field(7.0, description="how often they are grown anew")
    answer_s: Positive = Field(300.0, description="trees that have not come by then are not waited for")


class TrialParameters(Section):
    """Champion and challengers: what trades, and what would. Each is scored on outcomes that do not overlap."""

    promotion: Literal["propose", "automatic"] = Field(
        "propose", description="propose: a forecaster that won its trial waits for the operator's `promote`"
    )
    significance: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.05, description="the chance that any of them is proposed though none is better"
    )
    promoted_weight: Fraction = Field(0.2, description="what a promoted forecaster is given, together at most 1")
    cost_bp: NonNegative = Field(5.0, description="what a change of position is thought to cost")
    drift: bool = Field(True, description="what drifts, or is shown to do harm, loses its weight at once")


class LearnerParameters(Section):
    """Forecasters of returns over one day and five. They are always scored; they trade what weight they are given."""

    every_s: Annotated[float, Field(ge=300, le=86_400)] = Field(3_600.0, description="how often they forecast")
    weights: dict[ForecasterName, Weight] = Field(
        default_factory=dict, description="what of each forecast is traded; together at most 1, the rest is zero's"
    )
    combine: Literal["weights", "hedge"] = Field(
        "weights", description="what is traded: by `weights`, or by the weights the forecasters have earned"
    )
    max_sharpe: Positive = Field(1.0, description="all together expect no more than so many standard deviations a year")
    prior_sharpe: Finite = Field(0.5, description="what the long prior expects of every underlying, a year")
    half_life_days: Annotated[float, Field(ge=10, allow_inf_nan=False)] = Field(
        365.0, description="ridge forgets by half in so long"
    )
    trees: TreeParameters = TreeParameters()
    trial: TrialParameters = TrialParameters()

    @field_validator("weights")
    @classmethod
    def _at_most_all(cls, weights: dict[str, float]) -> dict[str, float]:
        if sum(weights.values()) > 1.0 + 1e-9:
            raise ValueError(f"they add up to {sum(weights.values()):g}: at most 1")
        return weights

    @model_validator(mode="after")
    def _grown(self) -> Self:
        if not self.trees.enabled and any(name.startswith("trees") for name in self.weights):
            raise ValueError("trees have a weight, and are not enabled: trees: {enabled: true}")
        return self


class ForecastParameters(Section):
    """Volatility by exponentially weighted squared returns of the index, and by HAR over a day, a week and a month;
    correlations; what an operator expects."""

    model: Literal["har", "harq", "ewma"] = Field(
        "har",
        description="har: the next day's from the last day's, week's and month's; harq: the day's the less the more it "
        "may be in error; ewma: the fast estimate alone",
    )
    har_every_s: Positive = Field(300.0, description="interval of the returns HAR counts; no finer than sample_every_s")
    sample_every_s: Positive = Field(5.0, description="sampling interval of index returns")
    half_life_s: Positive = Field(3_600.0, description="half-life of the variance estimate")
    correlation_every_s: Positive = Field(60.0, description="interval of the returns that correlations are made from")
    correlation_half_life_s: Positive = Field(
        864_000.0, description="half-life of correlations, and of what is a contract's own risk"
    )
    prior_annual_vol: Positive = Field(0.60, description="volatility before data, and what the estimate shrinks to")
    prior_samples: Positive = Field(60.0, description="how many samples the prior is worth")
    jump_clip: Positive = Field(6.0, description="a return beyond so many standard deviations counts as that many")
    vol_floor: Positive = Field(0.10, description="annual volatility is never taken below this")
    vol_cap: Positive = Field(3.00, description="nor above this")
    carry_half_life_h: Positive = Field(1.0, description="funding and basis to come are the mean of so long")
    views: dict[str, ReturnView] = Field(default_factory=dict, description="expected returns by underlying")
    learners: LearnerParameters = LearnerParameters()


Width = Fraction | Literal["cube_root"]


class FixedTarget(Section):
    """Keep an underlying's delta at a dollar figure whatever is held."""

    kind: Literal["fixed"] = "fixed"
    delta_usd: Finite = Field(description="wanted dollar delta, coin collateral counted")
    band_usd: Positive | Literal["cube_root"] = Field(
        description="no trade while |actual - target| is within this; cube_root weighs the cost of hedging against the "
        "risk of standing off as gamma moves the delta, and trades to the edge"
    )
    min_band_usd: Positive = Field(500.0, description="cube_root is never narrower than this")


class VolTarget(Section):
    """Share in the book's volatility budget (`allocator.annual_vol`), by inverse volatility times weight."""

    kind: Literal["volatility"] = "volatility"
    weight: Finite = Field(1.0, description="risk weight among the volatility-targeted; negative is short")
    band: Width = Field(
        0.10,
        description="half-width of the no-trade band, as a fraction of |target|; cube_root weighs the cost of trading "
        "against the risk of standing off, and trades back to the edge whatever band_inner is",
    )
    min_band_usd: Positive = Field(500.0, description="and never narrower than this")


class ReturnTarget(Section):
    """The best exposure for what is expected: `forecast.views` and carry against risk, a fraction of Kelly's, within
    `allocator.annual_vol`."""

    kind: Literal["return"] = "return"
    band: Width = Field("cube_root", description="as of a volatility target")
    min_band_usd: Positive = Field(500.0, description="and never narrower than this")


AnyTarget = Annotated[FixedTarget | VolTarget | ReturnTarget, Field(discriminator="kind")]


class FactorTarget(Section):
    """Keep an exposure other than delta within a band, by trading options (gamma, vega, theta) or dated contracts."""

    usd: Finite = Field(0.0, description="wanted exposure, in the factor's unit")
    band_usd: Positive = Field(description="no trade while |actual - wanted| is within this")


class AllocatorParameters(Section):
    targets: dict[str, AnyTarget] = Field(default_factory=dict, description="by underlying; the others are held as is")
    factors: dict[str, FactorTarget] = Field(
        default_factory=dict, description='other exposures of the targeted: "vega:BTC", "gamma:ETH", "vega:BTC:30d"'
    )
    annual_vol: Positive = Field(
        0.20, description="ex-ante volatility of all volatility and return targets together, of equity per year"
    )
    max_leverage: Positive = Field(2.0, description="their gross exposure over equity is scaled down to this")
    kelly: Fraction = Field(0.25, description="return targets: this fraction of the exposure of fastest growth")
    max_drawdown: Fraction | None = Field(
        None, description="they shrink as equity falls from its peak, to nothing when it is this far below"
    )
    band_inner: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="once outside the band, trade back to this share of its half-width (1: its edge, 0: the aim)"
    )
    expected_hold_h: Positive = Field(24.0, description="horizon over which carry and risk weigh against cost")
    carry_trades: bool = Field(
        False,
        description="contracts of one underlying may be held against each other for their carry, options for time "
        "value; else carry only chooses among contracts that serve the target",
    )
    fast: bool = Field(False, description="the compiled solver (numba, extra `fast`) instead of numpy's")
    switch_bp: NonNegative = Field(
        3.0, description="another contract must be cheaper by this before an order at work is moved there"
    )
    pinned: Literal["reduce", "hold"] = Field(
        "reduce", description="options pinned near their strike at expiry are closed, or held with a wider band"
    )
    avoid_expiry_h: NonNegative = Field(1.0, description="no new position in a contract this close to expiry")


class GuardParameters(Section):
    """Hard limits, measured at the worst combination of working and unknown orders. They only ever cut."""

    max_gross_usd: Positive = Field(description="sum over contracts of |notional|")
    max_net_usd: Positive = Field(description="|dollar delta| of any one underlying, coin collateral counted")
    max_instrument_usd: Positive = Field(description="|notional| in any one contract")
    max_order_usd: Positive = Field(description="notional of one order")
    max_gross_leverage: Positive | None = Field(None, description="max_gross_usd, and this many times equity at most")
    max_net_leverage: Positive | None = Field(None, description="max_net_usd, and this many times equity at most")
    max_instrument_leverage: Positive | None = Field(None, description="likewise max_instrument_usd")
    max_underlying_usd: Positive | None = Field(None, description="sum of |notional| over contracts on one underlying")
    max_underlying_leverage: Positive | None = Field(None, description="likewise, this many times equity")
    max_venue_usd: Positive | None = Field(None, description="sum of |notional| over contracts at one venue")
    max_venue_leverage: Positive | None = Field(None, description="likewise, this many times equity")
    max_gamma_usd_1pct: Positive | None = Field(
        None, description="|change of one underlying's delta| for a move of 1 %"
    )
    max_vega_usd_1pt: Positive | None = Field(None, description="|vega| of one underlying, weighted to 30 days")
    max_bucket_vega_usd_1pt: Positive | None = Field(
        None, description="|vega| of one underlying within one expiry bucket (1d, 7d, 30d, 90d, 1y), as it is"
    )
    max_bucket_basis_usd_1pct: Positive | None = Field(
        None, description="|change of value| of one underlying's bucket for 1 % of annual basis"
    )
    max_scenario_loss: Positive | None = Field(
        None, description="loss over equity in the worst of the scenarios: 16 % moves, volatility up and down"
    )
    max_stress_loss: Positive | None = Field(
        None, description="loss over equity if one of history's worst days came again (pricing/worst_days.py)"
    )
    max_var: Positive | None = Field(None, description="loss of a day over equity, passed on one day of a hundred")
    max_es: Positive | None = Field(None, description="mean loss over equity of the worst 2.5 days of a hundred")
    var_annual_vol: Positive = Field(
        0.80, description="these two take volatility to be at least this, and what was seen where that is more"
    )
    max_margin_use: Fraction = Field(
        0.6, description="maintenance margin of one pool over its equity: beyond, exposure only shrinks"
    )
    max_margin_danger: Fraction = Field(0.75, description="beyond this, positions in that pool are cut")
    min_liquidation_distance: Fraction | None = Field(
        None, description="a move that would liquidate a pool must be larger than this; nearer, exposure only shrinks"
    )
    max_turnover_usd_per_hour: Positive = Field(description="notional filled and working in a rolling hour")
    max_turnover_usd_per_day: Positive | None = Field(None, description="likewise in 24 rolling hours")
    max_fees_usd_per_hour: Positive = Field(description="fees paid and at stake in a rolling hour")
    max_fees_usd_per_day: Positive | None = Field(None, description="likewise in 24 rolling hours")
    max_orders_per_minute: int = Field(120, gt=0, description="creates in a rolling minute")
    max_cancel_ratio: Positive | None = Field(
        None, description="cancels per order in a rolling hour (from 50 orders on): beyond, orders cross or wait"
    )
    collar_bp: Positive = Field(50.0, description="a limit price may be this far through mark and mid, no further")
    option_collar: Positive = Field(0.25, description="the collar of an option, as a fraction of its mark")
    option_collar_vol: Positive = Field(0.10, description="or, where that is wider, in volatility")
    max_index_divergence: Fraction = Field(0.01, description="|mark/index - 1| beyond which nothing is increased")
    max_depeg: Fraction = Field(0.005, description="a stablecoin this far from 1 USD: what settles in it only shrinks")
    max_daily_loss: Fraction | None = Field(None, description="equity this far below the UTC day's first: reduce-only")
    flatten_daily_loss: Fraction | None = Field(None, description="this far below: everything is closed")
    halt_daily_loss: Fraction | None = Field(None, description="this far below: halted")
    max_drawdown: Fraction = Field(0.5, description="equity this far below its peak: reduce-only until reset")
    flatten_drawdown: Fraction | None = Field(None, description="this far below its peak: everything is closed")
    halt_drawdown: Fraction | None = Field(None, description="this far below its peak: halted")
    max_clock_step_ms: int = Field(500, gt=0, description="wall clock against monotonic clock in one tick")


class ExecutionParameters(Section):
    """How to trade what is permitted. All time limits are decided in the core, on DecisionDue."""

    order_type: Literal["passive", "taker"] = Field("passive", description="passive: post, reprice, then cross")
    dust_usd: NonNegative = Field(20.0, description="differences below this are left alone")
    slice_usd: Positive = Field(50_000.0, description="largest notional of one order")
    recross_ms: int = Field(
        250, ge=0, description="a contract in which crossing found too little is left alone so long"
    )
    cross_after_ms: int = Field(
        5_000,
        ge=0,
        description="work that waited this long is crossed: counted from when a side of an underlying first had "
        "something to do, not from an order's own birth",
    )
    reprice_ticks: int = Field(2, ge=1, description="cancel a passive order the touch has left behind by this")
    slippage_bp: NonNegative = Field(5.0, description="an IOC's limit beyond the touch")
    surcharge_most_bp: NonNegative = Field(
        10.0,
        description="measured costs beyond fee and half spread may change the allocator's by so much; 0: never",
    )
    excess: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="an order may be larger than what is left to do by this share before it is replaced"
    )
    post_only_attempts: int = Field(3, ge=1, description="post-only rejects in a row before crossing")
    reject_limit: int = Field(5, ge=1, description="rejects in a row on a contract before it is left alone")
    reject_pause_ms: int = Field(30_000, gt=0, description="for this long")
    valid_for_ms: int = Field(2_000, gt=0, description="the venue refuses a create that reaches it later")
    unknown_after_ms: int = Field(3_000, gt=0, description="a create or cancel without an answer is unknown")
    skew_margin_ms: int = Field(1_000, ge=0, description="added to deadlines before absence counts as proof")
    query_every_ms: int = Field(1_000, gt=0, description="how often an unknown order is asked for")
    reconcile_every_ms: int = Field(5_000, gt=0, description="how often positions, orders, balances are compared")
    resubscribe_every_ms: int = Field(2_000, gt=0, description="how often a broken book is asked for")


class SlowFactor(Section):
    """What the core minds of a slow factor: how fast its word fades, and which values it does not believe."""

    half_life_days: Positive = Field(7.0, description="it counts for half when it is so old")
    stale_days: Positive = Field(30.0, description="older than this it says nothing")
    lowest: Finite | None = Field(None, description="a value below this is refused")
    highest: Finite | None = Field(None, description="a value above this is refused")
    jump_sd: Positive = Field(
        10.0,
        description="nor is a change of more than so many standard deviations of its usual ones believed, until the "
        "next value agrees with it",
    )


class Parameters(Section):
    """The core's whole configuration."""

    decide_every_ms: int = Field(250, gt=0, description="the tick")
    decide_at_most_every_ms: int = Field(5, gt=0, description="rate limit of early ticks")
    wake_move_bp: Positive = Field(3.0, description="an index move since the last tick that brings the next forward")
    state: StateParameters = StateParameters()
    pricing: PricingParameters = PricingParameters()
    forecast: ForecastParameters = ForecastParameters()
    allocator: AllocatorParameters = AllocatorParameters()
    guards: GuardParameters
    execution: ExecutionParameters = ExecutionParameters()
    factors: Mapping[str, SlowFactor] = Field(
        default_factory=dict,
        description="slow factors and where they are told, by a name of yours; none are asked for by default",
    )
