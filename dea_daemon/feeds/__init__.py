"""The venues' market dialects, one pure codec each.

In: bytes from a venue; subscriptions wanted. Out: events; bytes to send.
Must never know: a socket, a clock, what the events are for.
"""
