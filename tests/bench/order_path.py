"""From a price's receipt to an order's headers, ours beside a bare "receive, then ccxt.create_order" loop.

Both trade with the same `dea-daemon venue`, in a process of its own on loopback, in turns in this process and on
uvloop. Ours is the daemon as it runs, books of all contracts, guards, ledger, tape and log included; it trades at
nearly every index price, as its band is a dollar wide. The bare loop is subscribed to the same index prices and
nothing else, and sends an order at each. Both clocks start when the websocket library hands the message over, and
stop where aiohttp is about to write the request (`on_request_headers_sent`).
"""

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import ccxt.async_support as ccxt
import numpy as np
import uvloop
import yaml
from websockets.asyncio.client import connect

from dea_daemon.domain.instruments import FloatArray
from dea_daemon.shell import logs
from dea_daemon.shell.runner import Runner
from dea_daemon.shell.settings import Settings, load
from dea_daemon.wiring.demo import config_file, spawn_venue, venue_environment
from dea_daemon.wiring.live import trade

ROUNDS = 3
SECONDS = 10.0
SETTLE_S = 4.0  # until the first, large orders are done: then each price asks for one more
STAGES = ("wait", "decide", "commit", "send")
INDICES = ("btc_usd", "eth_usd")
LOT_USD = 10


class Path1(NamedTuple):
    pass
