#!/bin/sh
# The main job in two commands, on the clips in docs/examples.
set -eu

out=build/demo.nes2net
run() {
    echo
    echo "\$ $*"
    "$BIN/$@"
}

echo "1. A checkpoint becomes a bundle: ONNX stages, each compared with torch, and a manifest that vouches for them."
run nes2net-export --to onnx -o "$out" --force
echo
echo "2. The bundle scores a human and a synthetic clip; no torch is needed from here on."
run nes2net-run --bundle "$out" docs/examples/human.flac docs/examples/synthetic.flac --receipt
echo
echo "3. The bundle that comes with the package is the same one, calibrated on labelled audio: it tells what a"
echo "   score means."
run nes2net-run docs/examples/human.flac docs/examples/synthetic.flac
echo
echo "p_spoof: the probability that a recording is synthetic, if half of all are. This small detector shows the"
echo "toolkit at work; its model card says what it is not for."
echo "Your own audio: $BIN/nes2net-run FILE-OR-FOLDER"
