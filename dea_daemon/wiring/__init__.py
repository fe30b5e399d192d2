"""One file per kind of run.

In: settings. Out: a source of events and a sink for commands, joined to the engine.
Must never know: what a decision means; it connects, and decides nothing.
"""
