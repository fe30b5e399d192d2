"""Pure maths of contracts: Black-76, implied volatility, forwards, the exposure matrix.

In: instrument columns and prices, arrays. Out: arrays. No state, no side effects.
Must never know: orders, accounts, events, configuration.
"""
