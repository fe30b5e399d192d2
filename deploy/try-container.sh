#!/usr/bin/env bash
# The Dockerfile, built by buildah on a bare Debian 12 and run by podman as deploy/compose.yaml would: read-only root,
# uid 10001, no capability, no network. Inside, the demo trades against its own simulated venue.
# Needs root. Prints a line a check, and ends with 0 if all held. What stays is in build/deploy.
set -euo pipefail

# A mount namespace of its own: crun refuses a machine that shows it cgroups of both versions.
[ -n "${DEA_TRY_UNSHARED:-}" ] || DEA_TRY_UNSHARED=1 exec unshare --mount "$0" "$@"
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi

# shellcheck source=deploy/try-tree.sh
. "$(dirname "$0")/try-tree.sh"

need buildah buildah
need podman podman
need crun crun
make_tree
make_wheels

# A storage of its own: nothing of the machine's is touched. vfs and chroot need no kernel help.
export STORAGE_DRIVER=vfs
store=(--root "$work/store" --runroot "$work/run" --storage-driver vfs)
name=dea-try-$$
clean() {
    podman "${store[@]}" rm -f -t 0 "$name" >/dev/null 2>&1 || true
    buildah "${store[@]}" rm -a >/dev/null 2>&1 || true
    podman "${store[@]}" rmi -af >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work" 2>/dev/null || true
}
trap clean EXIT

failed=0
check() { # check WORDS COMMAND...
    local words=$1
    shift
    if "$@" >"$work/check.out" 2>&1; then echo "ok      $words"; else
        echo "FAILED  $words"
        sed 's/^/        /' "$work/check.out"
        failed=1
    fi
}

# pip inside the build finds the lock's wheels where they are mounted, and no index.
printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$work/pip.conf"
podman "${store[@]}" import -q "$made/tree.tar" localhost/dea-base:latest >/dev/null
check "the Dockerfile builds" buildah "${store[@]}" bud --isolation chroot --format docker --pull-never \
    --build-arg BASE=localhost/dea-base:latest -v "$made/wheels:/wheels:ro" -v "$work/pip.conf:/etc/pip.conf:ro" \
    -t localhost/dea-daemon:latest -f "$root/Dockerfile" "$root"
[ $failed = 0 ] || exit 1

podman "${store[@]}" run -d --name "$name" --read-only --user 10001:10001 --cap-drop all --network none \
    --security-opt no-new-privileges --cgroups disabled --health-interval disable \
    --ulimit nofile=4096:4096 --ulimit nproc=1024:1024 --log-driver k8s-file --log-opt "path=$work/log" \
    --tmpfs /tmp:mode=1777,noexec,nosuid,nodev --tmpfs /state:mode=1777 \
    --tmpfs /run/dea-daemon:mode=1777,noexec,nosuid,nodev \
    localhost/dea-daemon:latest demo --seconds 600 --json >/dev/null 2>"$made/podman.log"

inside() { podman "${store[@]}" exec "$name" "$@"; }
inspect() { podman "${store[@]}" inspect -f "$1" "$name"; }
trading() { grep -q '"event":"order.sent"\|"event":"decision.made"' "$work/log"; }
within() { # within SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done
}
refused() { ! "$@" 2>&1; }

check "the demo trades" within 60 trading
check "its root is read-only" refused inside touch /opt/dea-daemon/x
check "its user is 10001, without a capability" inside sh -c \
    '[ "$(id -u)" = 10001 ] && grep -q "^CapEff:.0000000000000000$" /proc/self/status'
check "nothing is compiled at start: the image has every .pyc" inside sh -c \
    'ls /opt/dea-daemon/lib/python3*/site-packages/dea_daemon/__pycache__/engine.*.pyc'
check "status --health answers 0" within 20 inside /opt/dea-daemon/bin/dea-daemon status --health
check "so does the image's own healthcheck" podman "${store[@]}" healthcheck run "$name"

check "SIGTERM ends it within its time" podman "${store[@]}" stop -t 90 "$name"
check "with exit code 0" test "$(inspect '{{.State.ExitCode}}')" = 0
check "drained, reconciled, no limit breached" python3 - "$work/log" <<'PY'
import json, sys
lines = [line[line.index("{"):] for line in open(sys.argv[1]) if "{" in line]
last = next(e for e in map(json.loads, reversed(lines)) if e.get("event") == "run.finished")
wanted = {"drained": True, "reconciled": True, "limits_breached": 0}
found = {key: last.get(key) for key in wanted}
sys.exit(0 if found == wanted else f"it ended with {found}")
PY
cp "$work/log" "$made/container.log"
[ $failed = 0 ] && echo "ALL HELD"
exit $failed
