#!/bin/sh
# Builds the viewer at web/viewer/dist: its packages only when the lock file changed, the bundle only when a source did.
set -eu
cd "$(dirname "$0")/../web/viewer"
started=$(date +%s)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
    "$@" >"$log" 2>&1 && return
    tail -n 20 "$log" >&2
    echo "packaging/viewer.sh: \"$*\" failed in web/viewer (above)" >&2
    exit 1
}
if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
    echo "Installing the viewer's packages from npm"
    quietly npm ci --no-audit --no-fund
    cp package-lock.json node_modules/.installed-lock.json
fi
if [ ! -e dist/index.html ] || [ -n "$(find . -path ./node_modules -prune -o -path ./dist -prune -o -type f -newer dist/index.html -print | head -n 1)" ]; then
    echo "Building the viewer"
    quietly npm run --silent build
    touch dist/index.html
    echo "Built web/viewer/dist in $(($(date +%s) - started)) s."
fi
