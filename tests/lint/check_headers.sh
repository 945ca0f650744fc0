#!/bin/sh
# Each header compiles alone, as C17 and as C++17 (compound literals and all, hence not pedantic there); what only tests
# include, as C17: check_headers.sh ROOT
set -u
cd "$1" || exit 2
flags="-I. -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only $(pkg-config --cflags libopenjp2)"
for generated in build*/generated; do [ -d "$generated" ] && flags="$flags -I$generated"; done
faults=0
headers=$(git ls-files -co --exclude-standard -- '*.h' 2>/dev/null | grep -v '^tests/lint/cases/')
[ -d .git ] || [ -f .git ] || headers=$(find . -name '*.h' | sed 's|^\./||' | sort)
for header in $headers; do
    for language in 'c -std=c17 -Wpedantic' 'c++ -std=c++17'; do
        case $header,$language in tests/*,c++*) continue ;; esac
        # shellcheck disable=SC2086 -- flags and language are lists of words
        if ! message=$(printf '#include "%s"\n' "$header" | cc $flags -x $language - 2>&1); then
            printf '%s: does not compile alone as %s\n%s\n' "$header" "$(echo "$language" | sed 's/.*=//; s/ .*//')" "$(echo "$message" | grep error | head -n 3)"
            faults=$((faults + 1))
        fi
    done
done
if [ "$faults" = 0 ]; then echo "headers: clean"; else
    echo "headers: $faults faults"
    exit 1
fi
