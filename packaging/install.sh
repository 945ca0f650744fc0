#!/bin/sh
# Installs the Debian packages that are missing, and says what it does.
#
#   packaging/install.sh build|test...
#
# Reads packaging/packages-<name>.txt. Quick and silent when nothing is missing; as root or through sudo otherwise.
# Exit status 1, with one line that says why, when it cannot.
set -eu
folder=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "packaging/install.sh: $*" >&2
    exit 1
}

wanted=
for list in "$@"; do
    [ -r "$folder/packages-$list.txt" ] || fail "no such list: $list"
    wanted="$wanted $(sed 's/#.*//' "$folder/packages-$list.txt")"
done

# A Node.js from elsewhere that is new enough serves as well, and Debian's would collide with it.
have_node() {
    command -v npm >/dev/null 2>&1 && command -v node >/dev/null 2>&1 &&
        [ "$(node -p 'parseInt(process.versions.node)')" -ge 18 ]
}

missing() {
    command -v dpkg-query >/dev/null 2>&1 || fail "this is not Debian (no dpkg): install the equivalents of" $wanted
    installed=" $(dpkg-query -W -f='${Package} ${db:Status-Status}\n' | sed -n 's/ installed$//p' | tr '\n' ' ') "
    for package in $wanted; do
        case $package in nodejs | npm) have_node && continue ;; esac
        case $installed in *" $package "*) ;; *) printf '%s ' "$package" ;; esac
    done
}

lacking=$(missing)
[ -n "$lacking" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif ! command -v sudo >/dev/null 2>&1; then
    fail "these packages are missing, and I am neither root nor is there sudo: $lacking"
elif [ -t 0 ]; then
    as_root=sudo
elif sudo -n true 2>/dev/null; then
    as_root='sudo -n'
else
    fail "these packages are missing, and sudo asks for a password that nobody can type here: $lacking"
fi

echo "Installing Debian packages: $lacking"
started=$(date +%s)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-unsafe-io "$@" >"$log" 2>&1 </dev/null
}
# A broken third-party source must not stop the rest: what counts is whether the packages can be had.
if ! apt -o APT::Update::Error-Mode=any update; then
    tail -n 5 "$log" >&2
    echo "packaging/install.sh: apt-get update had errors (above); trying to install all the same" >&2
fi
if ! apt install -y --no-install-recommends $lacking; then
    tail -n 15 "$log" >&2
    fail "apt-get cannot install them (above): is there a network, and do the sources in /etc/apt name a mirror?"
fi
still=$(missing)
[ -z "$still" ] || fail "apt-get reported success, yet these are missing: $still"
echo "Installed in $(($(date +%s) - started)) s."
