"""The whole core against a synthetic venue in virtual time, with faults between any two steps: one seed, one history.

In: a seed, the faults that may strike, how often. Out: what was broken, and what was tried.
Must never know: how a guard decides; the oracle judges from the venue's side.
"""
