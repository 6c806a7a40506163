#!/usr/bin/env bash
# Makes the boards of docs/results.md again, and the page from them: about two hours on two cores.
#   benchmarks/results.sh [FOLDER OF RECORDINGS]       default ../shared/data; recordings that are not there are left out
# Finished work in runs/results is kept: an interrupted call goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
data="${1:-../shared/data}"
bin="${VENV:-.venv}/bin"
runs=runs/results

sam2vss() {
    echo "+ sam2vss $*" >&2
    "$bin/sam2vss" "$@"
}

store() {  # BOARD NAME
    "$bin/python" benchmarks/store_board.py "$runs/$1" "docs/results/$2.json"
}

resume() {  # FOLDER: the option that goes on with what lies there
    [[ -e "$runs/$1" ]] && echo --resume || true
}

[[ -e $runs/synthetic ]] || sam2vss synthetic --out $runs/synthetic --split test --clips 20
sam2vss bench $runs/synthetic --segmenter segformer-nano --sam2 nano --curve --boundary full --workers 2 \
    --out $runs/synthetic-bench $(resume synthetic-bench)
store synthetic-bench 21-synthetic-bench
sam2vss ablate $runs/synthetic --segmenter segformer-nano --sam2 nano --workers 2 \
    --out $runs/synthetic-ablation $(resume synthetic-ablation)
store synthetic-ablation 31-synthetic-ablation

if [[ -d $data/camvid && -d $data/camvid_predictions ]]; then
    sam2vss bench "$data/camvid" --labels unet="$data/camvid_predictions" --only 0016E5_15hz_a --sam2 nano --curve \
        --boundary full --out $runs/camvid-bench $(resume camvid-bench)
    store camvid-bench 51-camvid-bench
    sam2vss ablate "$data/camvid" --labels "$data/camvid_predictions" --only 0016E5_15hz_a --sam2 nano \
        --out $runs/camvid-ablation $(resume camvid-ablation)
    store camvid-ablation 53-camvid-ablation
fi
for name in davis_sem ycbvideo; do
    [[ -d $data/$name ]] || continue
    [[ -e $runs/made-up/$name ]] || "$bin/python" benchmarks/made_up_labels.py "$data/$name" --out "$runs/made-up/$name"
    sam2vss bench "$data/$name" --labels made-up="$runs/made-up/$name" --only $(cat "$data/$name"/{train,val}.txt) \
        --sam2 nano --boundary full --out $runs/$name-bench $(resume $name-bench)
    store $name-bench "6$([[ $name == davis_sem ]] && echo 1 || echo 3)-$name-bench"
done

sam2vss report docs/results/* --markdown docs/results.md
