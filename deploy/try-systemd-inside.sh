#!/usr/bin/env bash
# Run by try-systemd.sh as a service inside the container: the unit's life, a line a check.
set -uo pipefail
unit=dea-daemon.service
failed=0

check() { # check WORDS COMMAND...
    local words=$1
    shift
    if "$@" >/tmp/check.out 2>&1; then echo "ok      $words"; else
        echo "FAILED  $words"
        sed 's/^/        /' /tmp/check.out
        failed=1
    fi
}
prop() { systemctl show -P "$1" $unit; }
is() { [ "$(prop "$1")" = "$2" ] || { echo "$1 is $(prop "$1"), not $2"; return 1; }; }
within() { # within SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.3; done
}
journal() { journalctl -q -o cat -u $unit --sync 2>/dev/null; journalctl -q -o cat -u $unit; }
told() { journal | grep -q -- "$1"; }
stop_posts() { journal | grep -c 'deribit/main: .* cancelled, none left'; }
posts_are() { [ "$(stop_posts)" -ge "$1" ]; }
restarted() { [ "$(prop NRestarts)" -ge "$1" ] && is ActiveState active; }
not_root() { [ "$(stat -c %u "/proc/$(prop MainPID)")" != 0 ]; }
operate() { RUNTIME_DIRECTORY=/run/dea-daemon timeout 20 /opt/dea-daemon/bin/dea-daemon "$@"; }
same_pid() { [ "$(prop MainPID)" = "$pid" ] && is ActiveState active; }
open_orders() { # by the venue's own log
    python3 - <<'PY'
import json
left = {}
for line in open("/run/venue.jsonl"):
    record = json.loads(line)
    if record["event"] == "order.accepted":
        left[record["order_id"]] = float(record["amount"])
    elif record["event"] == "order.filled":
        left[record["order_id"]] -= float(record["amount"])
    elif record["event"] == "order.cancelled":
        left[record["order_id"]] = 0.0
print(sum(amount > 1e-9 for amount in left.values()))
PY
}
orders() { [ "$(open_orders)" -gt 0 ]; }
none_open() { [ "$(open_orders)" = 0 ]; }

finish() {
    journalctl -q >/out/journal.txt
    cp /run/venue.jsonl /out/ 2>/dev/null
    [ $failed = 0 ] && echo "ALL HELD"
    exit 0
}
trap finish EXIT

check "systemd-analyze verify finds nothing" sh -c '! systemd-analyze verify /etc/systemd/system/dea-daemon.service 2>&1 | grep .'
systemctl start venue
sleep 3
check "started: READY was told" systemctl start $unit
is ActiveState active || exit
check "its user is not root, and its key came by LoadCredential" not_root
check "status --health says so" within 30 operate status --health
check "it has orders working" within 30 orders

pid=$(prop MainPID)
kill -HUP "$pid"
check "systemctl reload" systemctl reload $unit
sleep 1
check "neither SIGHUP nor reload ended it" same_pid
sleep 8
check "the watchdog of 6 s was fed" same_pid

kill -STOP "$pid"
check "hung: the watchdog ends it, and it is started again" within 60 restarted 1
check "hung: the watchdog it was" told "Watchdog timeout"
check "hung: ExecStopPost cancelled its orders, with the key" posts_are 1

check "it has orders working again" within 40 orders
kill -KILL "$(prop MainPID)"
check "killed: started again" within 60 restarted 2
check "killed: ExecStopPost cancelled its orders" posts_are 2

check "stopped" systemctl stop $unit
check "stopped: drained, with exit code 0" is ExecMainStatus 0
check "stopped: the result is success" is Result success
check "stopped: no order is open, by the venue's log" none_open

echo 'nonsense: 1' >>/etc/dea-daemon/config.yaml
systemctl reset-failed $unit 2>/dev/null
check "a wrong configuration does not start" sh -c "! systemctl start $unit"
sleep 4
check "it ends with 78" is ExecMainStatus 78
check "and is not started again" is NRestarts 0
check "and cancel-all does its work all the same" posts_are 4
