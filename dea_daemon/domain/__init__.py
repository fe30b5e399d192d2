"""The words of the house.

In: nothing. Out: instruments, accounts, units, events, orders, modes, parameters, decisions, errors.
Must never know: a venue's wire format, a clock, a socket, a strategy.
"""
