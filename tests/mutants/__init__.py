"""The defences against the fifty faults, taken away one at a time: each must be missed by a test.

In: the tables of this package. Out: which tests noticed. Must never know: why a fault happens.
"""
