#!/usr/bin/env bash
# The finished models as one folder in the published layout, and the logs and curves of their trainings.
#   recipes/mini/gather.sh WORK
set -euo pipefail
cd "$(dirname "$0")"
work=$1
rm -rf models logs
mkdir -p models/FireRedVAD logs
cp -r "$work/ctc/model" models/FireRedASR2-AED
cp -r "$work/lid/model" models/FireRedLID
cp -r "$work/det-vad/model" models/FireRedVAD/VAD
cp -r "$work/det-stream/model" models/FireRedVAD/Stream-VAD
cp -r "$work/det-events/model" models/FireRedVAD/AED
cp -r "$work/punc/model" models/FireRedPunc
for run in aed1 aed2 aed3 aed4 aed5 ctc lid det-vad det-stream det-events punc; do
  cp "$work/$run/metrics.jsonl" "logs/$run.jsonl"
  if [ -f "$work/$run/loss.png" ]; then cp "$work/$run/loss.png" "logs/$run.png"; fi
done
cp "$work/flat/flat_start.jsonl" logs/flat.jsonl
du -sh models
