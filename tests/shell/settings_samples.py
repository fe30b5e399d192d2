"""A small valid configuration, and the environment the shipped ones need."""

from pathlib import Path

# portfolio.yaml is no run's: it is read by `exposure`.
CONFIGS = sorted(p for p in (Path(__file__).parents[2] / "config").glob("*.yaml") if p.stem != "portfolio")

ENVIRON = {
    "DEA_SIMVENUE_HTTP_URL": "http://127.0.0.1:8080",
    "DEA_SIMVENUE_WS_URL": "ws://127.0.0.1:8080/ws/api/v2",
    "DEA_SIMVENUE_CLIENT_ID": "sim-7",
    "DEA_SIMVENUE_CLIENT_SECRET": "hush-hush",
    "DERIBIT_TESTNET_CLIENT_ID": "test-id",
    "DERIBIT_TESTNET_CLIENT_SECRET": "test-secret",
    "DEA_WEBHOOK_URL": "http://127.0.0.1:9000/hook",
    "DEA_TELEGRAM_TOKEN": "123:hush-hush",
}

GUARDS = """\
guards:
  max_gross_usd: 100_000
  max_net_usd: 50_000
  max_instrument_usd: 50_000
  max_order_usd: 5_000
  max_turnover_usd_per_hour: 1e6
  max_fees_usd_per_hour: 100
"""

VENUES = """\
venues:
  deribit:
    environment: testnet
    instruments: [BTC-PERPETUAL]
    client_id: {env: DERIBIT_TESTNET_CLIENT_ID}
    client_secret: {env: DERIBIT_TESTNET_CLIENT_SECRET}
"""

SMALL = VENUES + GUARDS
