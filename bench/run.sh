#!/bin/sh
# Runs every benchmark and prints its figures beside those of its peers, measured in the same run: bench/run.sh [NAME...]
set -u
cd "$(dirname "$0")/.." || exit 2
printf 'On: %s, %s processors\n' "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)" "$(nproc)"
status=0
for script in bench/*.bench.mjs; do
    name=$(basename "$script" .bench.mjs)
    case " $* " in "  " | *" $name "*) ;; *) continue ;; esac
    node "$script" || status=1
done
# The parts of the tool itself.
for part in plan engine precision attention dropout "study --sweep" devices; do
    name=${part%% *}
    case " $* " in "  " | *" $name "*) ;; *) continue ;; esac
    printf '\npulmo bench %s\n' "$part"
    # shellcheck disable=SC2086 # a part's options are words
    build/pulmo bench $part || status=1
done
exit $status
