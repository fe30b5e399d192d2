# Sourced by try-systemd.sh and try-container.sh: what both need. Kept in build/deploy, which `make clean` removes.
#   tree.tar     Debian 12 with python3 and systemd
#   wheels/      the runtime lock's wheels and the build backend, for the Python in it
#   wheels-own/  this package, of the working tree
# shellcheck shell=bash
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
made=$root/build/deploy

fail() {
    echo "$0: $*" >&2
    exit 1
}

# need COMMAND PACKAGE...: apt-get where the command is missing
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"
}

make_tree() {
    [ -f "$made/tree.tar" ] && return
    need debootstrap debootstrap
    local tree=$work/debian
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,python3-venv bookworm "$tree" \
        >"$made/debootstrap.log" || fail "debootstrap failed: see $made/debootstrap.log"
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
    tar -C "$tree" -cf "$made/tree.tar.part" .
    mv "$made/tree.tar.part" "$made/tree.tar"
    rm -rf "$tree"
}

make_wheels() {
    local python=$root/.venv/bin/python
    [ -x "$python" ] || make -C "$root" venv
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "needs Python 3.11, as Debian 12 has"
    if [ ! -f "$made/wheels/.of" ] || ! cmp -s "$root/requirements.lock" "$made/wheels/.of"; then
        rm -rf "$made/wheels"
        "$python" -m pip download -qq -d "$made/wheels" --only-binary=:all: \
            --require-hashes -r "$root/requirements.lock"
        "$python" -m pip download -qq -d "$made/wheels" --only-binary=:all: "hatchling>=1.27" # to build this package
        cp "$root/requirements.lock" "$made/wheels/.of"
    fi
    rm -rf "$made/wheels-own"
    "$python" -m pip wheel -q --no-deps --no-build-isolation -w "$made/wheels-own" "$root"
}

[ "$(id -u)" = 0 ] || fail "needs root"
mkdir -p "$made"
work=$(mktemp -d)
