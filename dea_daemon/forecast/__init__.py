"""Expected return and risk: volatility and correlation of the underlyings, the operator's views and the forecasters
that have weight, and each contract's own carry and risk.

In: View and this room's own memory; prices of before the run. Out: Forecast. `observe` and `recall` write the memory.
Must never know: positions, limits, orders.
"""
