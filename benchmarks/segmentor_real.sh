#!/usr/bin/env bash
# SAM 2 as segmentor on real recordings, with the bundled sam2-nano: CamVid (trained on the 1 Hz stills as one-frame
# windows, scored on 0016E5_15hz_a) and YCB-Video (trained on scene0000 and scene0001, scored on scene0002).
#   benchmarks/segmentor_real.sh [FOLDER [FOLDER OF RECORDINGS]]      default runs/segmentor-real ../shared/data
# Finished work is kept: a call goes on. The networks are trained on non-commercial data: do not publish them.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
runs="${1:-runs/segmentor-real}"
data="${2:-../shared/data}"
bin="${VENV:-.venv}/bin"
read -ra command <<< "${SAM2VSS:-$bin/sam2vss}"

sam2vss() {
    echo "+ sam2vss $*" >&2
    "${command[@]}" "$@"
}

once() {  # FOLDER COMMAND...: a run that is gone on with until it is whole
    local place=$1
    shift
    [[ -e $place/done ]] && return
    sam2vss "$@" --no-overlay --no-report --out "$place" $([[ -e $place ]] && echo --resume || true)
    touch "$place/done"
}

train() {  # KIND NET OPTIONS...
    local kind=$1 net=$2
    shift 2
    [[ -e $net/config.json ]] || sam2vss train "$kind" --out "$net" --resume "$@"
}

study() {  # NUMBER NAME SEGMENTER-STEPS WINDOW SCORED-CLIP TRAINING-CLIPS...
    local number=$1 name=$2 steps=$3 window=$4 clip=$5
    shift 5
    local place=$runs/$name root=$data/$name
    local model=$place/segformer
    [[ -e $model/preprocessor_config.json ]] || sam2vss train segmenter --data "$root" --only "$@" \
        --model segformer-nano --scale 341x256 --crop 256 --lr 2e-3 --head-factor 1 --steps "$steps" --device cpu \
        --out "$model" --resume
    local sources=()
    for training in "$@"; do sources+=("$root/data/$training"); done
    local masklets="--segmenter $model --sam2 nano --preset paper --save-masklets"
    once "$place/m-train" refine "${sources[@]}" $masklets --window "$window"
    once "$place/m-clip" refine "$root/data/$clip" $masklets
    local stored="--data $root --only $* --window $window --tracker stored:$place/m-train --labels $place/m-train/base"
    train classifier "$place/sam" $stored --encoder sam2:nano/low
    train classifier "$place/segformer-stage4" $stored --encoder "segmenter:$model/stage4"
    train classifier "$place/segformer-fused" $stored --encoder "segmenter:$model/fused"
    train classifier "$place/rich" $stored --encoder sam2:nano/low+mid+high+stage4 --pool mean max ring --tokens 8
    local low="--features $place/sam/features" rich="--features $place/rich/features"
    train classifier "$place/linear" $low --head linear
    train classifier "$place/window" $low --scope window
    train classifier "$place/window-quality" $low --scope window --weighting quality
    train classifier "$place/context" $low --head context --use-shape
    train classifier "$place/levels" $rich
    train classifier "$place/max" $rich --levels low --pool mean max
    train classifier "$place/ring" $rich --levels low --pool mean ring
    train classifier "$place/attention" $rich --levels low --use-tokens
    train classifier "$place/all" $rich --pool mean max ring --use-tokens --use-shape --head context

    local base="--base $place/m-clip/base" rows=() row net
    label() {
        row=$1
        shift
        once "$place/rows/$row" "$1" "$root/data/$clip" --tracker "stored:$place/m-clip" "${@:2}"
        rows+=("$row=$place/rows/$row")
    }
    label SAM2-base refine --labels "$place/m-clip/base"
    label I-SegFormer classify --classifier "$place/segformer-stage4"
    label I-SegFormer_base classify --classifier "$place/segformer-stage4" $base
    label I-SegFormer-fused classify --classifier "$place/segformer-fused"
    label I-SegFormer-fused_base classify --classifier "$place/segformer-fused" $base
    label I-SAM2 classify --classifier "$place/sam"
    label I-SAM2_base classify --classifier "$place/sam" $base
    label I-SAM2_base-learned classify --classifier "$place/sam" $base --combine learned
    label I-SAM2_base-half classify --classifier "$place/sam" $base --combine 0.5
    label window-vote_base classify --classifier "$place/sam" $base --vote window
    for net in linear window window-quality levels max ring attention context all; do
        label "${net}_base" classify --classifier "$place/$net" $base
    done
    label fusion-any refine --labels "$place/m-clip/base" --fusion nano-any
    if [[ -d $data/${name}_predictions ]]; then
        rows+=("U-Net=$data/${name}_predictions")
        label SAM2-U-Net refine --labels "$data/${name}_predictions" --label-set "$root/label_set.json"
        label fusion-any-U-Net refine --labels "$data/${name}_predictions" --label-set "$root/label_set.json" \
            --fusion nano-any
    fi
    sam2vss bench "$root" --only "$clip" --labels "segformer=$place/m-clip/base" --rows --out "$place/board" \
        $([[ -e $place/board ]] && echo --resume || true) --compare "${rows[@]}"
    "$bin/python" benchmarks/store_board.py "$place/board" "docs/results/$number-segmentor-$name.json"
}

superpixels() {  # NUMBER NAME SCORED-CLIP TRAINING-CLIPS...: the same on superpixels, which leave no pixel out
    local number=$1 name=$2 clip=$3
    shift 3
    local place=$runs/$name-superpixels root=$data/$name model=$runs/$name/segformer
    local sources=()
    for training in "$@"; do sources+=("$root/data/$training"); done
    once "$place/m-train" refine "${sources[@]}" --segmenter "$model" --tracker superpixel --window 1 --save-masklets
    once "$place/m-clip" refine "$root/data/$clip" --segmenter "$model" --tracker superpixel --save-masklets
    local stored="--data $root --only $* --window 1 --tracker stored:$place/m-train --labels $place/m-train/base"
    train classifier "$place/sam" $stored --encoder sam2:nano/low
    train classifier "$place/segformer-stage4" $stored --encoder "segmenter:$model/stage4"
    train classifier "$place/segformer-fused" $stored --encoder "segmenter:$model/fused"
    local rows=("superpixel=$place/m-clip") net base="--base $place/m-clip/base"
    for net in sam segformer-stage4 segformer-fused; do
        once "$place/rows/I-$net" classify "$root/data/$clip" --classifier "$place/$net" --tracker "stored:$place/m-clip"
        once "$place/rows/I-$net-half" classify "$root/data/$clip" --classifier "$place/$net" $base --combine 0.5 \
            --tracker "stored:$place/m-clip"
        rows+=("I-$net=$place/rows/I-$net" "I-$net-half=$place/rows/I-$net-half")
    done
    once "$place/rows/fusion-any" refine "$root/data/$clip" --labels "$place/m-clip/base" --fusion nano-any \
        --tracker "stored:$place/m-clip"
    rows+=("fusion-any=$place/rows/fusion-any")
    sam2vss bench "$root" --only "$clip" --labels "segformer=$place/m-clip/base" --rows --out "$place/board" \
        $([[ -e $place/board ]] && echo --resume || true) --compare "${rows[@]}"
    "$bin/python" benchmarks/store_board.py "$place/board" "docs/results/$number-segmentor-$name-superpixels.json"
}

study 91 camvid 2500 1 0016E5_15hz_a 0001TP_1hz_train 0006R0_1hz_train 0016E5_1hz_train
study 95 ycbvideo 800 32 scene0002 scene0000 scene0001
superpixels 93 camvid 0016E5_15hz_a 0001TP_1hz_train 0006R0_1hz_train 0016E5_1hz_train
