"""What exposure is wanted, and the positions that reach it at the least cost within every limit.

In: View, Forecast, what trading was measured to cost, the limits, this room's memory. Out: Target, with a certificate.
Must never know: orders, how to trade. That a limit holds is the guards' word, never this room's.
"""
