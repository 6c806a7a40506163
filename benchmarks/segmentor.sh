#!/usr/bin/env bash
# SAM 2 as segmentor on unseen synthetic clips: trains every classifier and fusion of docs/results.md on stored masklets
# and scores the labels that they give. About two hours on two cores, most of it for the masklets.
#   benchmarks/segmentor.sh [FOLDER]       default runs/segmentor; finished work there is kept: a call goes on
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
runs="${1:-runs/segmentor}"
bin="${VENV:-.venv}/bin"
read -ra command <<< "${SAM2VSS:-$bin/sam2vss}"

sam2vss() {
    echo "+ sam2vss $*" >&2
    "${command[@]}" "$@"
}

scenes() {  # NAME SPLIT FIRST CLIPS FRAMES WINDOW: a data set, its base labels and masklets, found once
    [[ -e $runs/syn-$1 ]] || sam2vss synthetic --split "$2" --first "$3" --clips "$4" --frames "$5" --out "$runs/syn-$1"
    [[ -e $runs/m-$1/done ]] && return
    sam2vss refine "$runs/syn-$1" --segmenter segformer-nano --sam2 nano --preset paper --window "$6" --save-masklets \
        --no-overlay --no-report --out "$runs/m-$1" $([[ -e $runs/m-$1 ]] && echo --resume || true)
    touch "$runs/m-$1/done"
}

source_of() {  # NAME: options that say where masklets and base labels of a data set are
    echo --data "$runs/syn-$1" --tracker "stored:$runs/m-$1" --labels "$runs/m-$1/base"
}

train() {  # KIND NET OPTIONS...
    local kind=$1 net=$runs/nets/$2
    shift 2
    [[ -e $net/config.json ]] || sam2vss train "$kind" --out "$net" --resume "$@"
}

features() {  # NAME ENCODER OPTIONS...: features of clips and stills for all networks of an encoder, and a first network
    local name=$1 encoder=$2
    shift 2
    train classifier "$name-clips" $(source_of train) --val-data "$runs/syn-val" --val-tracker "stored:$runs/m-val" \
        --val-labels "$runs/m-val/base" --encoder "$encoder" --epochs 1 "$@"
    train classifier "$name" $(source_of stills) --window 1 --encoder "$encoder" "$@" \
        --features "$runs/nets/$name-clips/features" --val-features "$runs/nets/$name-clips/val-features"
}

stored() {  # NAME: options for more networks on the same features
    echo --features "$runs/nets/$1-clips/features" "$runs/nets/$1/features" --val-features "$runs/nets/$1-clips/val-features"
}

label() {  # ROW COMMAND OPTIONS...
    local row=$1
    shift
    [[ -e $runs/rows/$row/done ]] && return
    sam2vss "$@" --tracker "stored:$runs/m-test" --no-overlay --no-report --out "$runs/rows/$row" \
        $([[ -e $runs/rows/$row ]] && echo --resume || true)
    touch "$runs/rows/$row/done"
}

classify() {  # ROW NET OPTIONS...
    local row=$1 net=$2
    shift 2
    label "$row" classify "$runs/syn-test" --classifier "$runs/nets/$net" "$@"
}

scenes train train 5000 64 32 32
scenes stills train 6000 340 1 1
scenes val validation 0 24 32 32

features sam sam2:nano/low
features segformer segmenter:segformer-nano/stage4
features fused segmenter:segformer-nano/fused
features rich sam2:nano/low+mid+high+stage4 --pool mean max ring --tokens 8

low="--levels low"
train classifier linear $(stored sam) --head linear
train classifier window $(stored sam) --scope window
train classifier window-quality $(stored sam) --scope window --weighting quality
train classifier context $(stored sam) --head context --use-shape
train classifier context-window $(stored sam) --head context --use-shape --scope window --weighting quality
train classifier levels $(stored rich)
train classifier max $(stored rich) $low --pool mean max
train classifier ring $(stored rich) $low --pool mean ring
train classifier attention $(stored rich) $low --use-tokens
train classifier all $(stored rich) --pool mean max ring --use-tokens --use-shape --head context
train fusion fusion-any $(stored sam)
train fusion fusion-features $(stored sam) --use-features
train fusion fusion $(stored sam) --use-classifier "$runs/nets/sam"

scenes test test 0 20 48 32

base="--base $runs/m-test/base"
classify I-SegFormer segformer
classify I-SegFormer_base segformer $base
classify I-SegFormer-fused fused
classify I-SegFormer-fused_base fused $base
classify I-SAM2 sam
classify I-SAM2_base sam $base
classify I-SAM2_base-combined sam $base --combine learned
classify I-SAM2_base-half sam $base --combine 0.5
classify linear_base linear $base
classify window-vote_base sam $base --vote window
for net in window window-quality levels max ring attention context context-window all; do
    classify "${net}_base" $net $base
done
label fusion-any refine "$runs/syn-test" --labels "$runs/m-test/base" --fusion "$runs/nets/fusion-any"
label fusion refine "$runs/syn-test" --labels "$runs/m-test/base" --fusion "$runs/nets/fusion"
label fusion-features refine "$runs/syn-test" --labels "$runs/m-test/base" --fusion "$runs/nets/fusion-features"

rows() {  # ROWS...: the option that scores them
    local row
    echo --compare
    for row in "$@"; do echo "$row=$runs/rows/$row"; done
}

board() {  # NUMBER NAME BASE=FOLDER ROWS...: all rows against the first one, stored for docs/results
    local number=$1 name=$2 base=$3
    shift 3
    sam2vss bench "$runs/syn-test" --labels "$base" --rows --out "$runs/$name" \
        $([[ -e $runs/$name ]] && echo --resume || true) $(rows "$@")
    "$bin/python" benchmarks/store_board.py "$runs/$name" "docs/results/$number-$name.json"
}

[[ -e $runs/rows/majority ]] || ln -s "$(realpath "$runs/m-test")" "$runs/rows/majority"
board 81 segmentor-base segformer-nano="$runs/m-test/base" majority I-SegFormer I-SegFormer_base \
    I-SegFormer-fused I-SegFormer-fused_base I-SAM2 I-SAM2_base I-SAM2_base-combined I-SAM2_base-half
board 83 segmentor-steps I-SAM2_base="$runs/rows/I-SAM2_base" linear_base window-vote_base window_base window-quality_base \
    levels_base max_base ring_base attention_base context_base context-window_base all_base
board 85 segmentor-fusion majority="$runs/m-test" fusion-any fusion-features fusion I-SAM2_base
