"""Dynamic Exposure Allocation for crypto derivatives.

    bytes ─feeds─▶ Event ─state─▶ View ─forecast─▶ Forecast ─allocator─▶ Target ─guards─▶ Permit
          ─execution─▶ Command ─admit─▶ Approved ─shell/gateway─▶ ccxt ─▶ venue
                                                └──── acks, fills, timeouts come back as Events

Reading order, for a newcomer:

1. `engine.py`: `step`, the whole pipeline on one page.
2. `domain/`: the words everything else is said in.
3. `state/`, `forecast/`, `allocator/`, `guards/`, `execution/`: one room per arrow, in the order data flows.
   Each `__init__.py` says what comes in, what goes out, and what the room must never know.
4. `pricing/` and `feeds/`: the mathematics, and the venues' dialects, that the rooms lean on.
5. `shell/` and `simvenue/`: the async world, and a venue to trade against.
6. `wiring/` and `cli.py`: how a run is put together and started.

Everything below `shell` is a deterministic function of its events: no clock, no socket, no chance, no log.
"""

__version__ = "0.1.0"
