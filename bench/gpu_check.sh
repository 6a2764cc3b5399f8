#!/usr/bin/env bash
# Everything about the CUDA ops that needs a GPU, in one command: bench/gpu_check.sh
#
# Builds the op library for the GPU at hand, runs the tests marked `gpu`, the same under
# compute-sanitizer where that is installed, and times every op and the whole step against their rivals.
# Needs g++, nvcc, and Python with torch, numpy, pytest and pytest-benchmark, for the step also pillow and
# safetensors. Writes bench/results/<gpu>.json and <gpu>-step.json; the tables come last.
# At most nine minutes: each part has its limit.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD PATH=$PATH:/usr/local/cuda/bin

read -r arch name < <("$PYTHON" - <<'PY'
import re, torch
major, minor = torch.cuda.get_device_capability()
print(f"{major}{minor}", re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))
PY
)
echo "== $name, sm_$arch"

echo "== build (limit 150 s)"
# Without CMake and pybind11: the compiled ops are all that is needed here.
work=build/gpu_check
mkdir -p $work/generated
torch=$("$PYTHON" -c "import os, torch; print(os.path.dirname(torch.__file__))")
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pyfacelat/version.py)
sed -e "s/@PYFACELAT_VERSION@/$version/" -e "s/@PYFACELAT_GIT@/$(git describe --always --dirty 2>/dev/null || true)/" \
  -e "s/@PYFACELAT_ARCHS@/$arch/" -e "s/@PYFACELAT_FLAGS@/-O3 (bench\/gpu_check.sh)/" \
  -e "s/@PYFACELAT_TOOLKIT@/$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')/" \
  -e 's/@CMAKE_CXX_COMPILER_ID@ @CMAKE_CXX_COMPILER_VERSION@/g++/' -e 's/@[A-Z_]*@//g' \
  csrc/common/build_info.h.in >$work/generated/build_info.h
common="-O3 -std=c++20 -DNDEBUG -DTORCH_TARGET_VERSION=0x020a000000000000 -Icsrc -I$work/generated"
cxx="g++ $common -fno-trapping-math -fno-math-errno -fopenmp-simd -fPIC -fvisibility=hidden"
cxx+=" -isystem $torch/include -isystem $toolkit/include -w -c"
cuda="nvcc $common --expt-relaxed-constexpr -gencode=arch=compute_$arch,code=sm_$arch -Xcompiler -fPIC -c"
for source in csrc/*/*.{cpp,cu}; do
  [[ -f $source && $source != csrc/native/* ]] || continue
  object=$work/$(basename "$source").o
  if [[ $source == *.cu ]]; then echo "$cuda $source -o $object"; else echo "$cxx $source -o $object"; fi
done >$work/commands
rm -f $work/*.o
timeout 150 xargs -P "$(nproc)" -I{} sh -c '{}' <$work/commands
g++ -shared $work/*.o -o pyfacelat/_ops.abi3.so "$torch/lib/libtorch_cpu.so" \
  -L"$toolkit/lib64" -L"$toolkit/lib" -lcudart_static -ldl -lrt -lpthread

echo "== tests (limit 120 s)"
whole=1
"$PYTHON" -c "import PIL, safetensors" 2>/dev/null || whole=
tests=tests/ops
if [[ $whole ]]; then tests="tests/ops tests/projection/test_graphs_gpu.py"; fi
# shellcheck disable=SC2086 (two folders)
timeout 120 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu $tests

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    echo "== compute-sanitizer $tool (limit 40 s)"
    timeout 40 compute-sanitizer --tool $tool --error-exitcode 9 "$PYTHON" -m pytest -q -x \
      -p no:cacheprovider -m gpu tests/ops/test_cuda_graph.py -k waits
  done
else
  echo "== compute-sanitizer: not installed, left out"
fi

echo "== times of the ops (limit 85 s)"
timeout 85 "$PYTHON" -m bench.gpu_ops "bench/results/$name.json" --seconds 55

if [[ $whole ]]; then
  echo "== times of the whole step (limit 100 s)"
  timeout 100 "$PYTHON" -m bench.gpu_step "bench/results/$name-step.json" --seconds 70
else
  echo "== whole step: needs pillow and safetensors, left out"
fi
