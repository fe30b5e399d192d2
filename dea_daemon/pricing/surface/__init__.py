"""The volatility surface of one underlying: arbitrage-free, inside bid and ask, fitted aside.

In: a Chain of quotes. Out: smiles at the nodes of a lattice, and what they say between them. Must never know: orders,
accounts, how often it is asked. Start reading at `surface.py` (what one is), then `fit.py` (how one is made).
"""
