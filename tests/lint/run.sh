#!/bin/sh
# Runs every linter over the repository, after proving on cases/ that each of them can fail.
#
#   tests/lint/run.sh [RESULTS]      RESULTS: a file that gets "pass|fail<tab>name" lines
#
# cases/<check>-<what>/ is a small tree; `expected` is a line that check_<check> must print of it. It must exit 0 where
# that line says "clean", 1 otherwise.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
results=${1:-/dev/null}
: >"$results"
failed=0

note() { # pass|fail name
    printf '%s\tlint %s\n' "$1" "$2" >>"$results"
    [ "$1" = pass ] || failed=$((failed + 1))
}

for folder in "$here"/cases/*/; do
    name=$(basename "$folder")
    case_tree=$(mktemp -d) # outside of any checkout, so that the linter reads the tree as it lies there
    cp -r "$folder." "$case_tree"
    output=$("$here"/check_"${name%%-*}".* "$case_tree" 2>&1)
    status=$?
    rm -r "$case_tree"
    expected=$(cat "$folder/expected")
    case $expected in *": clean") wanted=0 ;; *) wanted=1 ;; esac
    if [ $status = $wanted ] && printf '%s\n' "$output" | grep -qF -- "$expected"; then
        note pass "case $name"
    else
        printf 'case %s: exit status %s, expected %s and the line\n  %s\ngot\n%s\n' "$name" $status $wanted "$expected" "$output"
        note fail "case $name"
    fi
done

for check in "$here"/check_*; do
    name=$(basename "$check" | sed 's/^check_//; s/\..*//')
    if output=$("$check" "$root" 2>&1); then note pass "$name"; else
        printf '%s\n' "$output"
        note fail "$name"
    fi
done
[ $failed = 0 ]
