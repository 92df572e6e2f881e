#!/bin/sh
# Builds, checks and measures everything that needs an NVIDIA GPU, in one command on a fresh machine:
#
#     sh benchmarks/gpu_suite.sh [--dry-run] [FOLDER]
#
# FOLDER (default: build/gpu-suite) takes the virtual environment and the bundles: 25 GB, most of them libraries.
# The results are benchmarks/results/latency-CARD-DATE.json, to be committed. Needs the driver, Python with
# venv, and a package index; takes about half an hour. --dry-run prints the commands and runs none.
set -eu

cd "$(dirname "$0")/.."
dry=""
if [ "${1:-}" = "--dry-run" ]; then
    dry=1
    shift
fi
work="${1:-build/gpu-suite}"
bin="$work/venv/bin"

run() {
    echo "+ $*"
    [ -n "$dry" ] || "$@"
}

# What a card or an index may lack: the rest goes on without it, and the results say what was missing.
try() {
    run "$@" || echo "left out: $*"
}

if [ -n "$dry" ]; then
    card="card"
else
    name="$(nvidia-smi --query-gpu=name --format=csv,noheader)" || {
        echo "error: nvidia-smi finds no card: install NVIDIA's driver" >&2
        exit 3
    }
    card="$(echo "$name" | head -n 1 | tr '[:upper:] ' '[:lower:]-' | tr -cd 'a-z0-9-' | sed 's/^nvidia-//')"
    nvidia-smi
fi
results="benchmarks/results/latency-$card-$(date -u +%Y-%m-%d).json"

run mkdir -p "$work"
run "${PYTHON:-python3}" -m venv "$work/venv"
run "$bin/python" -m pip install -q -c constraints.txt -e '.[export,gpu,bench]'
try "$bin/python" -m pip install -q -e '.[trt]'
try "$bin/python" -m pip install -q -e '.[trt-rtx]'

# Bundles: XLS-R 300M with random weights, as large and as fast as a real detector.
fp32="$work/xlsr-300m.nes2net"
fp16="$work/xlsr-300m-fp16.nes2net"
run "$bin/nes2net-export" --checkpoint random:xlsr-300m -o "$fp32" --force
run "$bin/nes2net-export" --from "$fp32" --fp16 -o "$fp16" --force

# Engines, into the bundles; where there is a card the exporter compares their scores and their precision.
try "$bin/nes2net-export" --from "$fp16" --to trt --engine trt --batch 32 --max-seconds 5
try "$bin/nes2net-export" --from "$fp16" --to trt --engine trt-rtx --batch 32 --max-seconds 5
try "$bin/nes2net-export" --from "$fp32" --int8 --to trt --engine trt --batch 32 --max-seconds 5 \
    -o "$work/xlsr-300m-int8-trt.nes2net" --force

# On real audio: a provider that ONNX Runtime replaced by the CPU ends this with an error.
for bundle in "$fp32" "$fp16"; do
    run "$bin/nes2net-run" docs/examples/human.flac docs/examples/synthetic.flac --bundle "$bundle" \
        --provider cuda --receipt --format jsonl
done
try "$bin/nes2net-run" docs/examples/human.flac --bundle "$fp16" --provider tensorrt --receipt --format jsonl

set -- --bundle "$fp32" --bundle "$fp16"
if [ -n "$dry" ] || [ -d "$work/xlsr-300m-int8-trt.nes2net" ]; then
    set -- "$@" --bundle "$work/xlsr-300m-int8-trt.nes2net"
fi
run "$bin/python" benchmarks/latency.py "$@" --device cuda --batch 1 --batch 8 --batch 32 --runs 200 \
    --seconds 5 -o "$results"
run "$bin/python" -m nes2net_bench.latency.targets "$results"
echo "results: $results"
