#!/bin/sh
# clang-format has nothing to change: check_format.sh ROOT
set -u
cd "$1" || exit 2
sources=$(git ls-files -co --exclude-standard -- '*.c' '*.h' '*.cc' 2>/dev/null | grep -v '^tests/lint/cases/')
[ -d .git ] || [ -f .git ] || sources=$(find . -name '*.[ch]' -o -name '*.cc' | sed 's|^\./||' | sort)
# shellcheck disable=SC2086 -- a list of paths without blanks
differing=$(clang-format --dry-run -Werror $sources 2>&1 | sed -n 's/^\([^: ]*\):\([0-9]*\):.*clang-format.*/\1:\2: not as clang-format writes it/p')
if [ -z "$differing" ]; then echo "format: clean"; else
    echo "$differing" | awk -F: '!seen[$1]++'
    echo "format: $(echo "$differing" | cut -d: -f1 | sort -u | wc -l) faults"
    exit 1
fi
