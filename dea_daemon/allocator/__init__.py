"""What exposure is wanted, and the positions that reach it.

In: View, Forecast, this room's memory (who is rebalancing). Out: Target.
Must never know: hard limits beyond the per-contract cap it is given, orders, how to trade.
"""
