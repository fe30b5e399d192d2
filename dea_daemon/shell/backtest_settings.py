"""What a backtest over candles assumes of the venue, beside the candles."""

from pydantic import Field

from dea_daemon.domain.parameters import Fraction, NonNegative, Positive, Section


class BacktestSettings(Section):
    """Of `dea-daemon backtest --history`; `run` does not read it."""

    capital_usd: Positive = Field(1_000_000.0, description="what the account begins with, in the settlement currency")
    taker_bp: NonNegative = Field(5.0, description="fee of an order that takes")
    maker_bp: float = Field(2.0, ge=-10, le=100, description="fee of an order that rested; negative is a rebate")
    half_spread_bp: NonNegative = Field(1.0, description="best bid and ask are this far from the candle's price")
    impact: NonNegative = Field(
        0.0, description="Y: taking Q of an hour's volume V costs Y·σ·√(Q/V) beside; 0: any size at the touch"
    )
    latency_ms: Positive = Field(100.0, description="median of the way to the venue, and of the way back")
    latency_spread: NonNegative = Field(0.5, description="standard deviation of its logarithm")
    latency_stress: Positive = Field(5.0, description="times that in a bar whose range is beyond four usual ones")
    warm_up_days: NonNegative = Field(60.0, description="history before the start that is watched, not traded")
    intrabar: bool = Field(True, description="within a bar prices go to the extreme against the position first")
    max_volume_share: Fraction = Field(0.1, description="of a bar's volume, what resting orders can be filled with")
