"""Hard limits. They only ever cut: a target inward, an order away.

In: View, Target's positions, the planned commands. Out: Permit, and the orders `admit` approved.
Must never know: forecasts, why a position is wanted, how the allocator works (its code could be wrong).
"""
