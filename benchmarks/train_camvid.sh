#!/usr/bin/env bash
# A small base model for CamVid, trained on the 1 Hz stills of its three training drives, and the dense clip
# 0016E5_15hz_a labelled by it, refined and scored. One thread, about 12 minutes of processor time for the training.
#   benchmarks/train_camvid.sh [FOLDER [FOLDER OF RECORDINGS]]      default runs/train-camvid ../shared/data
# A call goes on with what a killed one began. Settings were chosen by training on two of the drives and validating on
# the third, 0006R0; the dense clip had no part in it. CamVid excludes commercial use: do not publish the weights.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
runs="${1:-runs/train-camvid}"
data="${2:-../shared/data}/camvid"
bin="${VENV:-.venv}/bin"
read -ra command <<< "${SAM2VSS:-$bin/sam2vss}"
clip=0016E5_15hz_a
masklets=(--sam2 nano --preset paper --save-masklets)

sam2vss() {
    echo "+ sam2vss $*" >&2
    "${command[@]}" "$@"
}

[[ -e $runs/segformer/training.json ]] || sam2vss train segmenter --data "$data" --split train \
    --model segformer-nano --scale 341x256 --crop 256 --lr 2e-3 --head-factor 1 --steps 2500 --workers 1 --device cpu \
    --out "$runs/segformer" --resume
sam2vss refine "$data/data/$clip" --segmenter "$runs/segformer" "${masklets[@]}" --no-overlay --no-report \
    --out "$runs/refined" $([[ -e $runs/refined ]] && echo --resume || true)
for labels in base labels; do
    sam2vss evaluate "$data" "$runs/refined/$labels" --label-set "$data/label_set.json" --only "$clip" \
        --json "$runs/$labels.json"
done
