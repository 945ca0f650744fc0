#!/bin/bash
# Builds and runs every test, stage by stage, and closes with "N passed, N failed, N skipped".
#
#   tests/run.sh [STAGE...]        all stages without arguments; their order and names are below
#
# Each stage appends "pass|fail|skip<tab>name" lines to its results file; what a stage printed lies in build-test/logs.
# `make test` has installed what this needs. PULMO_SHARED (default ../shared) holds data that some tests want; they skip
# without it. Exit status 1 when anything failed.
set -u
cd "$(dirname "$0")/.." || exit 2
root=$PWD
export PULMO_SHARED=${PULMO_SHARED:-$root/../shared}
output=$root/build-test
logs=$output/logs
jobs=$(nproc)
stages=(lint release clang asan tsan fuzz train viewer browser integration reliability)
declare -A title=(
    [lint]="format, include direction, calls, length, headers; each linter against its bad samples"
    [release]="gcc, optimised, -Werror; all tests"
    [clang]="clang, optimised, -Werror; compiled only"
    [asan]="address and undefined-behaviour sanitizers over all tests but two"
    [tsan]="thread sanitizer over reception, store and web"
    [fuzz]="libFuzzer on every target, ${FUZZ_SECONDS:=8} s each"
    [train]="tests of the training code"
    [viewer]="types and bundle of the browser application"
    [browser]="the browser application in headless Chromium"
    [integration]="Orthanc, Pulmo and Chromium: study in, signed report out"
    [reliability]="real processes killed, starved, overloaded: nothing acknowledged is lost"
)

note() { printf '%s\t%s %s\n' "$1" "$stage" "$2" >>"$results"; }

# Compiles a preset with everything in it; a failure to compile is one failed test.
compile() { # preset targets...
    local preset=$1 launcher=()
    shift
    command -v ccache >/dev/null && launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    if cmake --preset "$preset" "${launcher[@]}" >"$log" 2>&1 && ninja -k 0 -C "$(folder_of "$preset")" "$@" >>"$log" 2>&1; then
        note pass "build"
        return 0
    fi
    note fail "build"
    grep -E -A 6 'FAILED|error' "$log" | head -n 40
    return 1
}

folder_of() { if [ "$1" = release ]; then echo build; else echo "build-$1"; fi; }

run_ctest() { # preset ctest-arguments...
    local folder
    folder=$(folder_of "$1")
    shift
    ctest --test-dir "$folder" -j "$jobs" --output-on-failure --test-output-size-passed 1000000 \
        --test-output-size-failed 1000000 --output-junit "$output/$stage.xml" "$@" >>"$log" 2>&1
    python3 tests/junit.py "$output/$stage.xml" "$stage" >>"$results"
    if grep -q '^fail' "$results"; then
        sed -n '/tests passed/,$p' "$log"
        grep -E '\[  FAILED  \]|\[  ERROR   \]|ERROR: |runtime error:|WARNING: ThreadSanitizer|SUMMARY:' "$log" | sort -u | head -n 30
    fi
}

# Scripts that are tests by themselves: exit status 0 passed, 77 skipped, else failed.
run_scripts() { # interpreter scripts...
    local interpreter=$1 script status
    shift
    for script in "$@"; do
        [ -e "$script" ] || continue
        timeout 900 "$interpreter" "$script" >"$logs/$stage-$(basename "$script").log" 2>&1
        status=$?
        case $status in
        0) note pass "$script" ;;
        77) note skip "$script: $(tail -n 1 "$logs/$stage-$(basename "$script").log")" ;;
        *)
            note fail "$script"
            echo "$script: exit status $status"
            tail -n 25 "$logs/$stage-$(basename "$script").log"
            ;;
        esac
    done
}

stage_lint() { tests/lint/run.sh "$results"; }
stage_release() { compile release all tests fuzzers && run_ctest release; }
stage_clang() { compile clang all tests fuzzers; }

stage_asan() {
    compile asan all tests fuzzers || return
    export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=print_stacktrace=1 LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
    # In the release stage only, where they take minutes less: a Java program that judges the same bytes, and the gate's
    # verdicts on chests, whose code test_app_analysis and test_infer_gate run here.
    run_ctest asan -E 'pixelmed|test_app_gate'
}

stage_tsan() {
    compile tsan all tests || return
    export TSAN_OPTIONS=suppressions=$root/tests/tsan.supp:halt_on_error=1:second_deadlock_stack=1
    run_ctest tsan -L tsan
}

stage_fuzz() {
    compile fuzz fuzzers || return
    export ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
    local source name corpus
    for source in fuzz/fuzz_*.c; do
        [ -e "$source" ] || continue
        name=$(basename "$source" .c) corpus=$output/corpus/$(basename "$source" .c)
        mkdir -p "$corpus"
        if timeout $((FUZZ_SECONDS + 120)) "build-fuzz/fuzz/$name" -max_total_time="$FUZZ_SECONDS" -timeout=20 -rss_limit_mb=2048 \
            -artifact_prefix="$output/$name-" "$corpus" fuzz/corpus/"${name#fuzz_}" >"$logs/fuzz-$name.log" 2>&1; then
            note pass "$name"
        else
            note fail "$name"
            grep -E 'ERROR|SUMMARY|runtime error|Test unit written|#[0-4] ' "$logs/fuzz-$name.log" | head -n 12
        fi
    done
}

stage_train() {
    if [ -d "$PULMO_SHARED/data" ]; then run_scripts /usr/bin/python3 train/test_*.py; else
        note skip "all: there is no $PULMO_SHARED/data"
    fi
}

stage_viewer() {
    if packaging/viewer.sh >"$log" 2>&1; then note pass bundle; else note fail bundle && tail -n 20 "$log"; fi
    if (cd web/viewer && npm run --silent check) >"$log" 2>&1; then note pass types; else note fail types && tail -n 20 "$log"; fi
}

stage_browser() { run_scripts node tests/browser/*.test.mjs; }
stage_integration() { run_scripts node tests/integration/*.test.mjs; }

stage_reliability() {
    compile release all reliability_tools || return
    run_scripts node tests/reliability/*.test.mjs
}

summary() { # results-file...
    cat "$@" | cut -f1 | sort | uniq -c |
        awk '{ n[$2] = $1 } END { printf "%d passed, %d failed, %d skipped", n["pass"], n["fail"], n["skip"] }'
}

mkdir -p "$logs"
wanted=("$@")
[ $# -gt 0 ] || wanted=("${stages[@]}")
began=$(date +%s)
files=()
number=0
for stage in "${wanted[@]}"; do
    [ -n "${title[$stage]-}" ] || { echo "no such stage: $stage (there are: ${stages[*]})" >&2; exit 2; }
    number=$((number + 1))
    results=$output/$stage.tsv log=$logs/$stage.log started=$(date +%s)
    : >"$results"
    files+=("$results")
    printf '[%d/%d] %s: %s\n' $number ${#wanted[@]} "$stage" "${title[$stage]}"
    ("stage_$stage")
    [ -s "$results" ] || note fail "nothing ran"
    printf '        %s (%d s)\n' "$(summary "$results")" $(($(date +%s) - started))
done

grep -h '^skip' "${files[@]}" | sed 's/^skip\t/skipped: /' | sort | uniq -c | sort -rn | head -n 20
grep -h '^fail' "${files[@]}" | sed 's/^fail\t/FAILED: /'
printf 'in %d s\n%s\n' $(($(date +%s) - began)) "$(summary "${files[@]}")"
! grep -hq '^fail' "${files[@]}"
