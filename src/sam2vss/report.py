"""One self-contained HTML page about a run: scores, a frame viewer, plots over time, settings and warnings.

Reads a run folder (finished or not) and writes `report.html`, which opens from disk and asks the network for
nothing: pictures and label maps are data URIs, style and script lie inside. The page's own source is
`report_page.html`, `report_page.css` and `report_page.js` beside this file. It computes no scores; it shows
what `run.json`, `windows.jsonl`, `scores.json` and the label folders hold.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from .errors import SettingsError
from .files import atomic_write_bytes, safe_name
from .page_tables import html_line, html_table
from .report_data import FINISHED, ClipRecord, RunRecord, counted, is_inside, num_masklets, read_run, to_number
from .report_frames import MAX_WIDTH, USUAL_PANELS, EmbeddedClip, clip_data, embed_clip, png_uri, share_frames
from .report_labels import LabelSet, LabelWords, tones_by_name
from .report_scores import UNKNOWN, class_card, percent, score_card, score_pair

logger = logging.getLogger(__name__)

MAX_MASKLET_ROWS = 20_000  # about 0.5 MB


def write_report(
    run_dir: Path, out: Path | None = None, max_frames: int = 120, others: Mapping[str, Path] | None = None
) -> Path:
    """Write the page of one run and return where it lies.

    Args:
        run_dir: Run folder with `run.json`; everything else in it is optional, and what is missing is left out of
            the page or named on it.
        out: The page, default `run_dir/report.html`.
        max_frames: Frames a clip may show; longer clips are thinned evenly, plots still hold every frame. A page
            holds at most four times as many frames, so with many clips each shows fewer; more than three label sets
            bring this down in proportion.
        others: Further labels of the same clips and label set, shown beside the run's own: folders of label maps
            `<video>/<frame>.png` by name. What is missing in them is named on the page. All maps of the clips shown
            are read, for the flicker.

    Raises:
        RunError: If the folder holds no readable `run.json`.
        MediaError: If the page cannot be written.
        SettingsError: If `max_frames` is below 1.
    """
    if max_frames < 1:
        raise SettingsError(f"max_frames must be at least 1, found {max_frames}")
    run_dir = Path(run_dir)
    page = Path(out) if out is not None else run_dir / "report.html"
    run = read_run(run_dir, others)
    with_frames = [clip for clip in run.clips if clip.frames]
    per_clip, num_viewed = share_frames(len(with_frames), max_frames, len(run.label_sets))
    shown = [embed_clip(run, clip, per_clip) for clip in with_frames[:num_viewed]]
    content = _render(run, [clip for clip in shown if clip.frames], page).encode("utf-8")
    atomic_write_bytes(page, content)
    logger.info("wrote %s (%.1f MB)", page, len(content) / 1e6)
    return page


def _render(run: RunRecord, shown: Sequence[EmbeddedClip], page: Path) -> str:
    """Fill the page's slots. Everything that comes from files passes `escape` or `_script_json` on its way."""
    panels = [labels for labels in run.label_sets if any(labels.key in clip.panels for clip in shown)]
    slots = {
        "title": escape(run.folder.resolve().name),
        "style": _page_source("css"),
        "script": _page_source("js"),
        "summary": escape(_summary(run)),
        "status": _status_chip(run),
        "warnings": _warnings(run.warnings),
        "scores": score_card(run.scores, run.words, tones_by_name(run.label_sets)),
        "facts": _facts(run),
        "notes": _viewer_notes(run, shown),
        "clip_options": "".join(
            f'<option value="{i}">{escape(clip.record.name)}</option>' for i, clip in enumerate(shown)
        ),
        "panels": "".join(map(_panel, panels)),
        "width": "wide" if len(panels) > USUAL_PANELS else "usual",
        "viewer_hidden": "" if shown else "hidden",
        "empty_hidden": "hidden" if shown else "",
        "class_scores": class_card(run.scores, run.label_space, run.words),
        "accounting": _accounting_table(run, page),
        "timings": _timing_table(run.info),
        "settings": _settings_tables(run.info),
        "data": "".join(_data_blocks(run, panels, shown)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: slots[match[1]], _page_source("html"))


def _page_source(suffix: str) -> str:
    return files(__package__).joinpath(f"report_page.{suffix}").read_text(encoding="utf-8")


def _data_blocks(run: RunRecord, panels: Sequence[LabelSet], shown: Sequence[EmbeddedClip]) -> Iterator[str]:
    """Yield one JSON block for the page and one a clip, which the script reads only when the clip is chosen."""
    label_space = run.label_space
    probe = np.arange(256, dtype=np.uint8).reshape(16, 16)
    classes = [
        {"name": name, "color": color.tolist()}
        for name, color in zip(label_space.names, label_space.palette, strict=True)
    ]
    yield _script_json(
        "report-data",
        {
            "classes": classes,
            "labelSets": [{"key": labels.key, "name": labels.name, "tone": labels.tone} for labels in panels],
            "hasBase": run.words.has_base,
            "maker": run.words.maker,
            "abstained": run.words.abstained,
            "confidence": run.words.confidence,
            "ignore": label_space.ignore_index,
            "isWide": label_space.dtype != np.uint8,
            "probe": png_uri(probe),  # read back by the script: some browsers falsify canvas pixels
        },
    )
    masklet_rows = MAX_MASKLET_ROWS
    for i, clip in enumerate(shown):
        content, masklet_rows = clip_data(clip, label_space, masklet_rows)
        yield _script_json(f"clip-{i}", content)


def _script_json(element_id: str, content: Any) -> str:
    """Return a JSON block in which no name can end the script element or open a comment."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{element_id}">{text}</script>\n'


def _mean(clips: Iterable[ClipRecord], key: str) -> float | None:
    values = [value for clip in clips for value in clip.series.get(key, []) if value is not None]
    return sum(values) / len(values) if values else None


def _find_setting(content: Any, *names: str) -> str | None:
    """Return the first non-empty plain value under one of the names, whatever section it stands in."""
    if not isinstance(content, Mapping):
        return None
    for name in names:
        if isinstance(content.get(name), str | int | float) and str(content[name]):
            return str(content[name])
    return next((found for value in content.values() if (found := _find_setting(value, *names))), None)


def _summary(run: RunRecord) -> str:
    """Say in one sentence what was done and what came of it."""
    num_frames = sum(len(clip.frames) for clip in run.clips)
    where = run.clips[0].name if len(run.clips) == 1 else counted(len(run.clips), "clip")
    text = f"{counted(num_frames, 'frame')} of {where}, {_method(run.info.get('settings'), run.words)}"
    outcome = []
    changed = _mean(run.clips, "changed")
    if changed is not None:
        outcome.append(f"{percent(changed)} % of the pixels changed class")
    for name, before, after in (
        ("flicker", _mean(run.clips, "flip_base"), _mean(run.clips, "flip_refined")),
        ("mIoU", *score_pair(run.scores, "mIoU")),
    ):
        if after is not None and not run.words.has_base:
            outcome.append(f"{name} {percent(after)} %")
        elif before is not None and after is not None:
            outcome.append(f"{name} {_change(percent(before), percent(after), after > before)}")
    return f"{text}: {', '.join(outcome)}." if outcome else f"{text}."


def _change(before: str, after: str, is_rise: bool) -> str:
    """Say how a percentage changed, as far as the printed digits show it."""
    if before == after:
        return f"stayed at {after} %"
    return f"{'rose' if is_rise else 'fell'} from {before} to {after} %"


def _method(settings: Any, words: LabelWords) -> str:
    """Say where the labels and the masklets come from, as far as the settings tell."""
    segmenter, labels = _find_setting(settings, "segmenter"), _find_setting(settings, "labels")
    sam2, tracker = _find_setting(settings, "sam2"), _find_setting(settings, "tracker")
    window = _find_setting(settings, "window")
    maker = f" of SAM 2 ({sam2})" if sam2 else f" of {tracker}" if tracker else ""
    span = f" in windows of {window} frames" if window else ""
    if words.result == "classified":
        classifier, base = (_find_setting(settings, name) for name in ("classifier", "base"))
        source = base or segmenter or labels
        by = f" by {Path(classifier).name}" if classifier else ""
        over = (
            f"over base labels{f' ({Path(source).name})' if source else ''}"
            if words.has_base
            else "without base labels"
        )
        return f"masklets{maker}{span} classified{by}, {over}"
    origin = (
        f"labelled by {segmenter}, " if segmenter else f"with stored labels ({Path(labels).name}), " if labels else ""
    )
    if tracker == "none":
        return f"{origin}without masklets"
    return f"{origin}refined with masklets{maker}{span}"


def _status_chip(run: RunRecord) -> str:
    status = str(run.info.get("status") or "status unknown")
    kind = "good" if status.lower() in FINISHED else "warn"
    found = [_find_setting(run.info, key) for key in ("mode", "device", "dtype", "started")]
    details = [text for text in found if text]
    return f'<span class="chip {kind}">{escape(status)}</span> ' + escape(" · ".join(details))


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<section class="card warnings" id="warnings"><h2>Please note</h2><ul>{items}</ul></section>'


def _viewer_notes(run: RunRecord, shown: Sequence[EmbeddedClip]) -> str:
    """Say what of the run the viewer does not show."""
    notes = []
    for clip in shown:
        total, kept = len(clip.record.frames), len(clip.frames)
        if kept < total:
            notes.append(
                f"{clip.record.name}: {kept} of {total} frames are shown, evenly spread; the plots hold all of them."
            )
    if len(shown) < len(run.clips):
        notes.append(f"The viewer holds {len(shown)} of {len(run.clips)} clips; the table of frames below lists all.")
    if shown and not any("picture" in frame for clip in shown for frame in clip.frames):
        notes.append("The run holds no input pictures (folder preview), so labels are shown alone.")
    if any(clip.size[0] == MAX_WIDTH for clip in shown):
        notes.append(f"Pictures and labels are shown at most {MAX_WIDTH} pixels wide; scores use the full size.")
    return "".join(f"<li>{escape(note)}</li>" for note in notes)


def _panel(labels: LabelSet) -> str:
    key, title = labels.key, escape(labels.title)
    return (
        f'<figure class="panel" data-panel-box="{key}"><figcaption><span class="dot {labels.tone}"></span>'
        f'<span class="panel-name">{title}</span><output data-hover="{key}" aria-live="off"></output>'
        f'</figcaption><div class="stage"><canvas data-panel="{key}" width="480" height="270" role="img" '
        f'aria-label="{title} of the chosen frame"></canvas><span class="marker" hidden></span>'
        f'<span class="no-picture" hidden></span></div></figure>'
    )


def _facts(run: RunRecord) -> str:
    """Return the few numbers that say how the run went, as far as they are known."""
    arrow = " \N{RIGHTWARDS ARROW} "
    sides = {"flip_base": "base", "flip_refined": run.words.result} if run.words.has_base else {"flip_refined": ""}
    flicker = arrow.join(_with_unit(_mean(run.clips, key)) for key in sides)
    windows = [window for clip in run.clips for window in clip.windows]
    num_frames = sum(len(clip.frames) for clip in run.clips)
    seconds = sum(_stage_seconds(run.info).values())
    masklets = sum(num_masklets(window) for window in windows)
    facts = {
        "frames": f"{num_frames}",
        "windows": f"{len(windows)}" if windows else UNKNOWN,
        "masklets per window": f"{masklets / len(windows):.1f}" if windows else UNKNOWN,
        "pixels inside masklets": _with_unit(_mean(run.clips, "coverage")),
        "pixels changed": _with_unit(_mean(run.clips, "changed")),
        "base pixels without a label": _with_unit(_mean_void(run, "void_share") if _has_base_void(run) else None),
        "pixels left without a label": _with_unit(_mean_void(run, "void_left_share") if _shows_left(run) else None),
        f"flicker, {arrow.join(sides.values())}".removesuffix(", "): flicker,
        "time": f"{seconds:.0f} s" if seconds else UNKNOWN,
        "time per frame": f"{seconds / num_frames:.2f} s" if seconds and num_frames else UNKNOWN,
    }
    known = "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in facts.items() if UNKNOWN not in text)
    return (
        f'<section class="card" aria-labelledby="h-facts"><h2 id="h-facts">At a glance</h2><dl>{known}</dl></section>'
    )


def _with_unit(value: float | None) -> str:
    return UNKNOWN if value is None else f"{percent(value)} %"


def _accounting_table(run: RunRecord, page: Path) -> str:
    """Return frames per clip at every stage, how much of them is void, and a link to the overlay video if any."""
    stages = ("expected", "decoded", "refined", "written")
    heads = [run.words.result if stage == "refined" else stage for stage in stages]
    voids = {"void_share": "void in base"} if _has_base_void(run) else {}
    voids |= {"void_left_share": "void left"} if _shows_left(run) else {}
    heads += voids.values()
    rows = []
    for clip in run.clips:
        numbers = [to_number(clip.counts.get(f"frames_{stage}")) for stage in stages]
        cells = [UNKNOWN if number is None else f"{number:.0f}" for number in numbers]
        cells += [_with_unit(to_number(clip.counts.get(key))) for key in voids]
        source = escape(str(clip.counts.get("source", "")))
        rows.append(html_line(escape(clip.name), [*cells, _overlay_link(run.folder, clip.name, page), source]))
    return html_table(["clip", *heads, "overlay", "source"], rows, "Frames at every stage", "accounting")


def _mean_void(run: RunRecord, key: str) -> float | None:
    """Return a fraction of void over the frames of all clips that say so, "void_share" or "void_left_share"."""
    known = [(to_number(clip.counts.get(key)), len(clip.frames)) for clip in run.clips]
    weighted = [(share, count) for share, count in known if share is not None]
    return sum(share * count for share, count in weighted) / max(1, sum(count for _, count in weighted))


def _has_base_void(run: RunRecord) -> bool:
    """Tell whether there are base labels and some of their pixels are void."""
    return run.words.has_base and any(to_number(clip.counts.get("void_share")) for clip in run.clips)


def _shows_left(run: RunRecord) -> bool:
    """Tell whether it is known how much void is left, and there is any, or was in the base labels."""
    shares = [to_number(clip.counts.get("void_left_share")) for clip in run.clips]
    return any(shares) or (_has_base_void(run) and any(share is not None for share in shares))


def _overlay_link(run_dir: Path, clip: str, page: Path) -> str:
    video = run_dir / "overlay" / f"{safe_name(clip)}.mp4"
    if not is_inside(run_dir, video) or not video.is_file():
        return UNKNOWN
    try:
        target = Path(os.path.relpath(video.resolve(), page.resolve().parent)).as_posix()
    except ValueError:  # Windows: page and run on different drives
        return UNKNOWN
    return f'<a href="./{escape(quote(target))}">video</a>'


def _stage_seconds(info: Mapping[str, Any]) -> dict[str, float]:
    stages = info.get("stage_seconds") or info.get("seconds")
    seconds = {str(name): to_number(value) for name, value in stages.items()} if isinstance(stages, Mapping) else {}
    return {name: value for name, value in seconds.items() if value is not None}


def _timing_table(info: Mapping[str, Any]) -> str:
    known = _stage_seconds(info)
    total = sum(known.values())
    if not total:
        return ""
    rows = [
        html_line(escape(name), [f"{value:.2f} s", f"{percent(value / total, 1)} %"])
        for name, value in sorted(known.items(), key=lambda item: -item[1])
    ]
    rows.append(html_line("total", [f"{total:.2f} s", ""]))
    return html_table(["stage", "time", "share"], rows, "Time per stage", "timings")


def _settings_tables(info: Mapping[str, Any]) -> str:
    """Return everything else that run.json holds, so that the page alone tells how the run was made."""
    shown_elsewhere = {"clips", "label_set", "stage_seconds", "seconds", "other_seconds"}
    groups: dict[str, Any] = {key: info[key] for key in ("settings", "weights", "versions") if info.get(key)}
    rest = {
        key: value
        for key, value in info.items()
        if key not in {*groups, *shown_elsewhere} and value not in (None, [], {})
    }
    if rest:
        groups["run"] = rest
    return "".join(
        html_table(
            ["name", "value"],
            [html_line(escape(key), [escape(text)]) for key, text in _flatten(value)],
            name.capitalize(),
        )
        for name, value in groups.items()
    )


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix or "value", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
