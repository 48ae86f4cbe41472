#!/usr/bin/env bash
# Builds, tests and measures the CUDA kernels on a bare machine: no network, nothing installed but what Python has.
#
#   OUT=results bash benchmarks/gpu.sh                     the device of this machine, for CUDAARCHS (default 90)
#   bash benchmarks/gpu.sh --emulated build/default        the same on the emulator, in tiny sizes, without installing
#   bash benchmarks/gpu.sh [...] -- --only bytes           what follows -- goes to gpu_benchmark.py
#
# Needs nvcc, cmake, ninja, numpy, scikit-learn, pytest, pytest-benchmark, pybind11 and scikit-build-core; measures torch
# and cupy, too, where they are, and whole methods where onnxruntime has its CUDA provider. Takes some ten minutes. Leaves
# gpu.json, gpu.md and the logs in $OUT (default gpu-results).
set -uo pipefail
cd "$(dirname "$0")/.."

emulated=""
case "${1:-}" in
  --emulated) emulated=$(cd "${2:?--emulated wants a build folder}/emulated" && pwd); shift 2 ;;
  -- | "") ;;
  *) echo "gpu.sh: '$1' is not understood; see the top of this file" >&2; exit 2 ;;
esac
[ "${1:-}" = "--" ] && shift

mkdir -p "${OUT:=gpu-results}"
OUT=$(cd "$OUT" && pwd)
export OUT
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A bank of a million rows takes 16 GB, which nobody wants back.
export ONNXVIZ_BENCHMARK_CACHE="${ONNXVIZ_BENCHMARK_CACHE:-$work/banks}"
failed=()

step() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1"; }
# Goes on after a failure: what comes later is wanted, too.
run() {
  local name=$1
  shift
  "$@" 2>&1 | tee "$OUT/$name.log"
  local status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || failed+=("$name ($status)")
  return "$status"
}

if [ -n "$emulated" ]; then
  export ONNXVIZ_EMULATED_CUDA=$emulated
  python=python3
  marker=emulated
else
  step "Build and install from the working tree"
  marker=gpu
  python=python3
  export ONNXVIZ_CUDA=ON CUDAARCHS="${CUDAARCHS:-90}"
  # Beside what Python has, and before it; an environment of its own would not see what another one holds.
  run install "$python" -m pip install --no-build-isolation --no-deps --no-index --target "$work/site" . || exit 1
  export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
  (cd "$work" && "$python" -c "from onnxviz import backend; print(backend.build_config())") | tee "$OUT/build.log"
fi

# The tests are of what is installed (-P), not of the folder here, which has no compiled modules.
# onnx and hypothesis may be missing, without which most test files cannot even be read.
tests=(tests)
if ! "$python" -c "import onnx, hypothesis" 2> /dev/null; then
  tests=()
  for file in tests/test_cuda_*.py; do
    if grep -qE '^(import|from) (onnx|hypothesis|graphs)\b' "$file"; then
      echo "left out, since onnx or hypothesis is not installed: $file"
    else
      tests+=("$file")
    fi
  done
fi
step "Tests marked $marker"
run tests "$python" -P -m pytest -m "$marker" -rs -q -p no:cacheprovider "${tests[@]}"

step "Measurements"
run benchmark "$python" benchmarks/gpu_benchmark.py "$@"

step "Whole methods on onnxruntime's CUDA provider"
if [ -n "$emulated" ]; then
  echo "left out: onnxruntime knows no emulated device"
elif "$python" -c "import onnxruntime, sys; sys.exit('CUDAExecutionProvider' not in onnxruntime.get_available_providers())"
then
  run end-to-end "$python" benchmarks/gpu_end_to_end.py
else
  echo "left out: the installed onnxruntime has no CUDA provider" | tee "$OUT/end-to-end.log"
fi

step "compute-sanitizer"
if [ -n "$emulated" ]; then
  echo "left out: the emulator has guards of its own" | tee "$OUT/sanitizer.log"
elif command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    run "sanitizer-$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -P -m pytest -m gpu -q \
      -p no:cacheprovider tests/test_cuda_occlusion.py tests/test_cuda_top_values.py -k "equal and not float16"
    if [ -f tests/test_cuda_neighbors.py ]; then
      run "sanitizer-$tool-neighbors" timeout 300 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -P -m \
        pytest -m gpu -q -x -p no:cacheprovider tests/test_cuda_neighbors.py
    fi
  done
else
  echo "left out: compute-sanitizer is not installed" | tee "$OUT/sanitizer.log"
fi

step "Done: $OUT"
ls -l "$OUT"
if [ "${#failed[@]}" -ne 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
