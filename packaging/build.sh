#!/bin/sh
# Builds the optimised tool at build/pulmo. Quiet where nothing changed.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$(date +%s)
if ! cmake --preset release >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
[ -e build/pulmo ] || echo "Building build/pulmo"
if ! ninja -C build ${NINJA_FLAGS-} pulmo >"$log" 2>&1; then
    grep -E -A 8 'error|FAILED' "$log" | head -n 40 >&2
    exit 1
fi
[ $(($(date +%s) - started)) -lt 3 ] || echo "Built build/pulmo in $(($(date +%s) - started)) s."
