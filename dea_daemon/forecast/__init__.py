"""Expected return and risk: so far, volatility and correlation of the underlyings.

In: View and this room's own memory. Out: Forecast. `observe` alone writes the memory.
Must never know: positions, limits, orders.
"""
