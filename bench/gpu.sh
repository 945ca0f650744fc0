#!/bin/bash
# Proves the CUDA plugin on the card at hand and leaves a report that names it.
#
#   bench/gpu.sh pack [SLICES]   where Pulmo builds: writes the case (plans, and what the CPU engine finds) to build-gpu/case
#   bench/gpu.sh [REPORT]        where a card is: builds the plugin from these sources and the case, measures, writes REPORT
#                                (bench/reports/gpu-<card>.md)
#
# The second needs nvcc, cuDNN 9, gcc, and no network: none of Debian's libraries, nothing but this folder with build-gpu/case
# in it. Where Pulmo builds and there is no case yet, it packs one itself.
# Exit status: 0 every goal reached; 1 something failed or missed its goal; 2 something to build with is missing; 77 no card.
set -u
cd "$(dirname "$0")/.." || exit 2
out=build-gpu
case_folder=$out/case
mkdir -p "$out"

say() { printf '%s\n' "$*" >&2; }

pack() { # slices
    command -v cmake >/dev/null && command -v ninja >/dev/null || { say "missing: cmake and ninja, to pack a case"; return 2; }
    cmake --preset release >"$out/pack.log" 2>&1 && ninja -C build infer_gpu_pack >>"$out/pack.log" 2>&1 ||
        { say "the engine does not build here ($out/pack.log): pack the case where it does and bring $case_folder"; return 2; }
    build/tests/infer_gpu_pack "$case_folder" "${1:-300}"
}

if [ "${1-}" = pack ]; then
    pack "${2:-300}"
    exit
fi

# ---- what is there --------------------------------------------------------------------------------------------------

nvcc=$(command -v nvcc || ls /usr/local/cuda*/bin/nvcc 2>/dev/null | tail -n 1)
[ -n "$nvcc" ] || { say "missing: nvcc (CUDA's toolkit 12 or newer)"; exit 2; }
command -v gcc >/dev/null || { say "missing: gcc"; exit 2; }
root=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
find_first() { # name folders...
    local name=$1 folder
    shift
    for folder in "$@"; do [ -e "$folder/$name" ] && { echo "$folder"; return; }; done
}
packages=$(python3 -c 'import nvidia.cudnn, os; print(os.path.dirname(nvidia.cudnn.__file__) or list(nvidia.cudnn.__path__)[0])' 2>/dev/null)
cudnn_include=$(find_first cudnn_graph.h "${CUDNN_ROOT-}/include" "$root/include" "$root/targets/x86_64-linux/include" \
    /usr/include /usr/include/x86_64-linux-gnu "$packages/include")
cudnn_library=$(find_first libcudnn.so.9 "${CUDNN_ROOT-}/lib" "$root/lib" "$root/lib64" "$root/targets/x86_64-linux/lib" \
    /usr/lib/x86_64-linux-gnu "$packages/lib")
cudart=$(find_first libcudart_static.a "$root/lib64" "$root/lib" "$root/targets/x86_64-linux/lib")
[ -n "$cudnn_include" ] && [ -n "$cudnn_library" ] ||
    { say "missing: cuDNN 9 (cudnn_graph.h: ${cudnn_include:-no}, libcudnn.so.9: ${cudnn_library:-no}); CUDNN_ROOT names its folder"; exit 2; }
[ -n "$cudart" ] || { say "missing: libcudart_static.a of CUDA's toolkit"; exit 2; }
[ -e "$case_folder/case.bin" ] || pack 300 || exit 2

# ---- build ----------------------------------------------------------------------------------------------------------

generation=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
arch=${generation:+-arch=sm_$generation}
warnings=(-Wall -Wextra -Wno-format-truncation)
plain=(gcc -std=gnu17 -O3 -D_GNU_SOURCE -I. -isystem "$cudnn_include" -isystem "$root/include" -ffp-contract=off -fPIC "${warnings[@]}")
build() {
    "$nvcc" -std=c++17 -O3 ${arch:--arch=sm_80} --fmad=false -D_GNU_SOURCE -I. -isystem "$cudnn_include" \
        -Xcompiler -fPIC,-fvisibility=hidden -c infer/cuda/card_cuda.cu -o "$out/card_cuda.o" || return
    "${plain[@]}" -fvisibility=hidden -shared -o "$out/pulmo_cuda.so" infer/cuda/conv_cudnn.c infer/cuda/network.c \
        infer/cuda/study.c infer/cuda/plugin.c infer/cuda/device_plan.c pulmo.c "$out/card_cuda.o" "$cudart/libcudart_static.a" \
        "$cudnn_library/libcudnn.so.9" -Wl,-rpath,"$cudnn_library" -Wl,--no-undefined -lstdc++ -lpthread -ldl -lrt -lm || return
    "${plain[@]}" -o "$out/engines" tests/infer_gpu_engines.c infer/cuda/conv_cudnn.c infer/cuda/device_plan.c pulmo.c \
        "$cudnn_library/libcudnn.so.9" -Wl,-rpath,"$cudnn_library" -lm || return
    "${plain[@]}" -o "$out/measure" tests/infer_gpu_measure.c infer/cuda/device_plan.c phantom/*.c volume/*.c pulmo.c random.c \
        workers.c -lpthread -ldl -lm
}
# What can be said without a card: whether cuDNN takes the fused graphs for one that is only described. It asks for the driver's
# library, for which the toolkit has a stand-in.
described() {
    local stub
    stub=$(find_first libcuda.so "$root/lib64/stubs" "$root/lib/stubs" "$root/targets/x86_64-linux/lib/stubs")
    [ -n "$stub" ] || { echo "the toolkit has no stand-in for the driver's library: cuDNN was not asked"; return; }
    mkdir -p "$out/stub" && ln -sf "$stub/libcuda.so" "$out/stub/libcuda.so.1"
    LD_LIBRARY_PATH=$out/stub "$out/engines" "$case_folder/detector.plan" "$case_folder/candidate.plan"
}
build >"$out/build.log" 2>&1 || { tail -n 20 "$out/build.log" >&2; say "FAILED: it does not build ($out/build.log)"; exit 1; }
say "built for ${generation:-80}; measuring"

# ---- measure --------------------------------------------------------------------------------------------------------

"$out/measure" "$out/pulmo_cuda.so" "$case_folder" >"$out/measure.md" 2>"$out/measure.log"
status=$?
if [ $status = 77 ]; then
    cat "$out/measure.md" >&2
    described >&2
    say "NO CARD: plugin and measurement were built, nothing was measured"
    exit 77
fi
card=$(sed -n 's/^- card: \([^,]*\),.*/\1/p' "$out/measure.md" | head -n 1)
report=${1:-bench/reports/gpu-$(echo "${card:-unknown}" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-').md}
mkdir -p "$(dirname "$report")"

batch=$(sed -n 's/^One batch of the detector on the card: \([0-9.]*\) ms.*/\1/p' "$out/measure.md")
torch=$(python3 bench/gpu_torch.py "$case_folder/detector.plan" ${batch:+"$batch"} 2>"$out/torch.log")
torch_status=$?
sanitizer=$(command -v compute-sanitizer || ls "$root/bin/compute-sanitizer" 2>/dev/null)
if [ -n "$sanitizer" ]; then
    "$sanitizer" --error-exitcode 9 --leak-check full "$out/measure" "$out/pulmo_cuda.so" "$case_folder" --quick >"$out/sanitizer.log" 2>&1
    sanitizer_status=$?
    clean=$(grep -E 'ERROR SUMMARY|LEAK SUMMARY' "$out/sanitizer.log" | tr '\n' ' ')
else
    sanitizer_status=77 clean="compute-sanitizer is not installed"
fi

{
    echo "# The CUDA plugin on ${card:-an unknown card}"
    echo
    echo "\`bench/gpu.sh\`, $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)."
    nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.max.sm --format=csv,noheader 2>/dev/null | sed 's/^/- nvidia-smi: /'
    cat "$out/measure.md"
    echo
    echo "## PyTorch"
    echo
    echo "${torch:-it failed, see torch.log: $(tail -n 1 "$out/torch.log")}"
    echo
    echo "## compute-sanitizer"
    echo
    echo "${clean:-no summary} (exit status $sanitizer_status)"
} >"$report"
say "report: $report"

failed=0
[ $status = 0 ] || { say "FAILED or missed: the measurement (status $status)"; failed=1; }
case $torch_status in 0) ;; 77) say "not compared: $torch" ;; *) say "FAILED or missed: PyTorch (status $torch_status)"; failed=1 ;; esac
case $sanitizer_status in 0) ;; 77) say "not run: $clean" ;; *) say "FAILED: compute-sanitizer (status $sanitizer_status)"; failed=1 ;; esac
[ $failed = 0 ] && say "ALL GOALS REACHED that could be measured"
exit $failed
