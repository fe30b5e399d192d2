"""How to trade what is permitted: target − actual − in flight → commands.

In: View, Permit, this room's memory (how long each difference has stood). Out: planned commands.
Must never know: why a position is wanted, what a limit is, ccxt, a socket.
"""
