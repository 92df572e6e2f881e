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
echo "A score is the detector's bona fide logit: the higher, the more human. Compare the two files rather than"
echo "one with zero: this small demo detector was trained on 44 minutes of speech, and its scores are not calibrated."
echo "Your own audio: $BIN/nes2net-run --bundle $out FILE-OR-FOLDER"
