#!/usr/bin/env bash
# `pip install .`, one command, into three environments: CPU-only torch, CUDA torch, CUDA torch without
# nvcc. Then each environment's _ops file is loaded beside the other torch.
#
#   tests/install/three_environments.sh [cpu] [cuda] [no-nvcc]      (default: all three)
#
# TORCH_CPU and TORCH_CUDA say what pip installs as torch; WORK where the environments go (kept if set).
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
python=${PYTHON:-python3}
export PYFACELAT_CUDA_ARCHS="${PYFACELAT_CUDA_ARCHS:-90}"
if [[ -z ${WORK:-} ]]; then
  WORK=$(mktemp -d)
  trap 'rm -rf "$WORK"' EXIT
fi
wanted=${*:-cpu cuda no-nvcc}

environment() { # name, what to install as torch
  [[ -x $WORK/$1/bin/python ]] && return
  "$python" -m venv "$WORK/$1"
  "$WORK/$1/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
}

torch_of() { "$WORK/$1/bin/python" -W ignore -c "import torch; print(torch.__version__)"; }

install_here() { # name; the rest of the environment comes from the caller
  echo "== $1: pip install . beside torch $(torch_of "$1")"
  "$WORK/$1/bin/python" -m pip uninstall --quiet --yes pyfacelat 2>/dev/null
  "$WORK/$1/bin/python" -m pip install --quiet --disable-pip-version-check "$root"
}

check() { # name, expected architectures, [another _ops file]
  local version
  version=$(torch_of "$1")
  (cd "$WORK" && "$WORK/$1/bin/python" "$root/tests/install/check_install.py" "$version" "${@:2}")
}

ops_of() { (cd "$WORK" && "$WORK/$1/bin/python" -c "from pyfacelat import _extension; print(_extension.LIBRARY)"); }

have_nvcc=$(command -v nvcc || true)
for name in $wanted; do
  case $name in
    cpu)
      environment cpu "${TORCH_CPU:-torch==2.13.0}"
      before=$(torch_of cpu)
      install_here cpu
      [[ $(torch_of cpu) == "$before" ]] || { echo "pip replaced torch $before"; exit 1; }
      check cpu "${have_nvcc:+$PYFACELAT_CUDA_ARCHS}"
      ;;
    cuda)
      environment cuda "${TORCH_CUDA:-torch}"
      install_here cuda
      check cuda "${have_nvcc:+$PYFACELAT_CUDA_ARCHS}"
      ;;
    no-nvcc)
      environment cuda "${TORCH_CUDA:-torch}"
      # CUDA_HOME decides where it is set: there is no nvcc in an empty folder.
      mkdir -p "$WORK/empty"
      CUDA_HOME="$WORK/empty" install_here cuda
      check cuda ""
      ;;
    *)
      echo "unknown environment: $name (cpu, cuda, no-nvcc)"
      exit 2
      ;;
  esac
  if [[ -x $WORK/cpu/bin/pyfacelat && -x $WORK/cuda/bin/pyfacelat ]]; then
    check cpu any "$(ops_of cuda)"
    check cuda any "$(ops_of cpu)"
  fi
done
echo "installed and checked: $wanted"
