"""The async world around the core.

In: sockets, timers, operators, the core's decisions. Out: events; orders, records, logs, metrics.
Must never know: a trading policy. When to retry, escalate or give up is the core's decision.
"""
