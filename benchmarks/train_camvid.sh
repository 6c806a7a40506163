#!/usr/bin/env bash
# Small base models for CamVid, trained on the 1 Hz stills of its three training drives, and the dense clip 0016E5_15hz_a
# labelled by them, refined and scored. One thread, about 10 minutes of processor time for each training, 20 for the last.
#   benchmarks/train_camvid.sh [FOLDER [FOLDER OF RECORDINGS]]      default runs/train-camvid ../shared/data
# A call goes on with what a killed one began. The settings of "published-views" were chosen by training on two of the
# drives and validating on the third, 0006R0, the dense clip had no part in it. The other two were made afterwards to find
# out what the first one lacks: "mild-views" leaves out changes of light and views smaller than the picture, "whole-frames"
# shows the whole frame too, with views as wide as it. CamVid excludes commercial use: do not publish the weights.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
runs="${1:-runs/train-camvid}"
data="${2:-../shared/data}/camvid"
bin="${VENV:-.venv}/bin"
read -ra command <<< "${SAM2VSS:-$bin/sam2vss}"

sam2vss() {
    echo "+ sam2vss $*" >&2
    "${command[@]}" "$@"
}

train() {  # NAME OPTIONS...
    local out=$runs/$1
    shift
    [[ -e $out/training.json ]] || sam2vss train segmenter --data "$data" --split train --model segformer-nano \
        --scale 341x256 --lr 2e-3 --head-factor 1 --steps 2500 --device cpu --out "$out" --resume "$@"
}

train published-views --crop 256
train mild-views --crop 256 --smallest 1 --no-light
train whole-frames --smallest 1 --no-light --crop 341
sam2vss bench "$data" --only 0016E5_15hz_a --segmenter "published-views=$runs/published-views" \
    "mild-views=$runs/mild-views" "whole-frames=$runs/whole-frames" --sam2 nano --out "$runs/bench" $([[ -e $runs/bench ]] && echo --resume || true)
"$bin/python" benchmarks/store_board.py "$runs/bench" docs/results/98-train-camvid.json
