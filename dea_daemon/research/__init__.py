"""What is learned from the past: candles, what a backtest recorded, its statistics and its report. Pure functions.

In: arrays. Out: arrays, figures, a page. Must never know: a clock, a socket, a file.
"""
