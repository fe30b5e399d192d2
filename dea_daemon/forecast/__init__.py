"""Expected return and risk: volatilities and correlations of the underlyings, each contract's own risk, signals.

In: View and this room's own memory. Out: Forecast. `observe` alone writes the memory.
Must never know: positions, limits, orders.
"""
