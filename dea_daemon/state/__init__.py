"""What is known: books, quotes, marks, positions, pools, orders, mode. `fold` is its only writer.

In: events, one at a time. Out: a read-only View, and Effects (a resubscription, a note, a wake-up).
Must never know: what to want, what to allow, how to trade, what time it is beyond the event's own.
"""
