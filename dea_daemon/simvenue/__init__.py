"""A venue, pure: price process, matching, accounts and margin, settlement, faults, wire dialects.

In: order requests and the time, by argument. Out: replies and VenueEvents. Same seed, same venue.
Must never know: the daemon's pricing, guards or state (a shared bug could hide), a clock, a socket.
"""
