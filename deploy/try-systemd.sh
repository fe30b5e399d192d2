#!/usr/bin/env bash
# The unit under a real systemd: Debian 12 in systemd-nspawn without a network, a simulated venue inside.
# Needs root. Prints a line a check, and ends with 0 if all held. What stays is in build/deploy.
set -euo pipefail
# shellcheck source=deploy/try-tree.sh
. "$(dirname "$0")/try-tree.sh"
trap 'rm -rf --one-file-system "$work"' EXIT

need systemd-nspawn systemd-container
make_tree
make_wheels

tree=$work/tree out=$work/out
mkdir -p "$tree" "$out"
tar -C "$tree" -xf "$made/tree.tar"
cp -r "$made/wheels" "$made/wheels-own" "$tree/opt/"
chroot "$tree" python3 -m venv /opt/dea-daemon
chroot "$tree" /opt/dea-daemon/bin/pip install -q --disable-pip-version-check --no-index \
    --find-links /opt/wheels --find-links /opt/wheels-own dea-daemon
rm -rf "$tree/opt/wheels" "$tree/opt/wheels-own"

# As docs/deploy.md says: configuration, key, unit. The key is the simulator's own, good for nothing else.
install -d -m 755 "$tree/etc/dea-daemon"
sed -e 's|http_url: .*|http_url: http://127.0.0.1:8900|' \
    -e 's|ws_url: .*|ws_url: ws://127.0.0.1:8900/ws/api/v2|' \
    -e 's|#credential: deribit|credential: deribit|' -e '/env: DEA_SIMVENUE/d' \
    -e 's|#cross_after_ms: .*|cross_after_ms: 60_000|' -e 's|format: auto.*|format: json|' \
    "$root/config/simvenue.yaml" >"$tree/etc/dea-daemon/config.yaml"
chmod 644 "$tree/etc/dea-daemon/config.yaml"
( umask 077
  echo sim-7 >"$tree/etc/dea-daemon/deribit-client-id"
  printf 'dea-daemon simvenue 7' | sha256sum | cut -c 1-43 >"$tree/etc/dea-daemon/deribit-client-secret" )
install -m 644 "$root/deploy/dea-daemon.service" "$tree/etc/systemd/system/"
install -m 755 "$root/deploy/try-systemd-inside.sh" "$tree/opt/try-inside.sh"
mkdir -p "$tree/etc/systemd/system/dea-daemon.service.d"
cat >"$tree/etc/systemd/system/dea-daemon.service.d/try.conf" <<'UNIT'
# so that the trial is short
[Service]
WatchdogSec=6s
RestartSec=2s
UNIT
cat >"$tree/etc/systemd/system/venue.service" <<'UNIT'
[Service]
Type=exec
ExecStart=/opt/dea-daemon/bin/dea-daemon venue --port 8900 --seed 7 --log /run/venue.jsonl
UNIT
cat >"$tree/etc/systemd/system/try.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/opt/try-inside.sh
StandardOutput=append:/out/log
StandardError=append:/out/log
TimeoutStartSec=300s
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../try.service "$tree/etc/systemd/system/multi-user.target.wants/try.service"

timeout 400 systemd-nspawn --quiet --directory="$tree" --bind="$out:/out" --register=no --keep-unit --private-network \
    --boot --kill-signal=SIGRTMIN+3 </dev/null >"$made/nspawn.log" 2>&1 || true
cp "$out"/* "$made/" 2>/dev/null || true
cat "$out/log" || fail "it did not boot: see $made/nspawn.log"
grep -q '^ALL HELD$' "$out/log" || fail "see $made/journal.txt"
