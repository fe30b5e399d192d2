"""cvxportfolio on the days of `tests.bench.rebalancing`, in an interpreter that has it: prints CPU seconds, as JSON.

`PYTHON cvxportfolio_peer.py GIVEN.npz`. Imports nothing of ours: it is run by another Python. What it trades is what
ours does: mean and variance against the cost of trading, every day, with the same expected returns and a covariance of
the same half-life, within a leverage. It holds fractions of contracts; it has no book and records no decision.
"""

# Its library is not among our dependencies.
# mypy: ignore-errors

import json
import sys
import time

import cvxportfolio as cvx
import numpy as np
import pandas as pd
from cvxportfolio.forecast import HistoricalFactorizedCovariance


def main(path):
    given = np.load(path)
    close, cost = given["close"], float(given["cost"])
    days = pd.date_range("2020-01-01", periods=len(close), tz="UTC")
    returns = pd.DataFrame(close[1:] / close[:-1] - 1.0, index=days[:-1])
    returns.columns = [f"A{k}" for k in range(close.shape[1])]
    returns["cash"] = 0.0
    expected = pd.Series(given["annual_return"] / 365.0, returns.columns[:-1])
    risk = cvx.FullCovariance(
        HistoricalFactorizedCovariance(half_life=pd.Timedelta(days=float(given["half_life_days"])))
    )
    trading = cvx.TransactionCost(a=cost, b=None)
    policy = cvx.SinglePeriodOptimization(
        cvx.ReturnsForecast(expected) - 0.5 / float(given["kelly"]) * risk - trading,
        [cvx.LeverageLimit(float(given["max_leverage"]))],
        include_cash_return=False,
        solver="CLARABEL",
    )
    market = cvx.MarketSimulator(
        returns=returns,
        costs=[cvx.TransactionCost(a=cost, b=None)],
        cash_key="cash",
        min_history=pd.Timedelta(days=int(given["warm_up_days"])),
    )
    began_s = time.process_time()
    result = market.backtest(policy, start_time=days[int(given["warm_up_days"])])
    seconds = time.process_time() - began_s
    h = result.h
    leverage = float((h.iloc[:, :-1].abs().sum(axis=1) / h.sum(axis=1)).mean())
    print(json.dumps({"seconds": seconds, "decisions": len(h) - 1, "leverage": leverage}))


if __name__ == "__main__":
    main(sys.argv[1])
