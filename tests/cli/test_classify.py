"""`sam2vss classify` and `refine --fusion`: what fills what, that they go on, and what they say to bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss import cli, hub, segmenters
from sam2vss.classifiers.classifier import MaskletClassifier
from sam2vss.datasets.synthetic import LABEL_SPACE
from sam2vss.encoders import image_text
from sam2vss.files import folder_fingerprint
from sam2vss.trackers.nothing import NoTracker
from sam2vss.trackers.superpixels import SuperpixelTracker
from sam2vss.types import LabelSpace
from tiny_image_text import save_tiny_image_text

NANO_FOLDER = Path(segmenters.__file__).parent / "nano"
VOID = LABEL_SPACE.ignore_index
BARE = ("--no-report", "--no-overlay")


def words(street, out: Path, *more: object, classifier: Path | None = None) -> list[object]:
    return ["classify", street.clip, "--out", out, "--classifier", classifier or street.classifier, *street.how,
            *(() if "--report" in more else BARE), *more]  # fmt: skip


def labels_of(run: Path, folder: str = "labels") -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted((run / folder).rglob("*.png"))])


def in_short(value: list[str] | str) -> str:
    return (value if isinstance(value, str) else " ".join(value))[:50]


def settings_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())["settings"]


@pytest.fixture(scope="session")
def alone(street, tmp_path_factory) -> Path:
    """A whole run without a base, with report and overlay."""
    out = tmp_path_factory.mktemp("alone") / "run"
    with toy.no_waiting_for_the_disk():
        call = words(street, out, "--report", "--save-masklets")
        assert cli.run([str(word) for word in call]) == 0
    return out


@pytest.fixture(scope="session")
def base(street) -> np.ndarray:
    """Base labels of the clip, (4, 60, 80)."""
    return labels_of(street.base.parent, f"base/{street.names[0]}")


@pytest.fixture(scope="session")
def partial(street, tmp_path_factory) -> Path:
    """Masklets of the first clip, two of every three left out, so that some pixels have none."""
    out = tmp_path_factory.mktemp("partial") / "run"
    with toy.no_waiting_for_the_disk(), pytest.MonkeyPatch.context() as patch:
        original = SuperpixelTracker.track

        def track(self, frames, start, context=None):
            found = original(self, frames, start, context)
            parts = {name: getattr(found, name)[::3] for name in ("predicted_iou", "stability", "points", "ids")}
            return replace(found, rles=tuple(rles[::3] for rles in found.rles), frame_iou=None, **parts)

        patch.setattr(SuperpixelTracker, "track", track)
        call = ["refine", street.clip, "--out", out, "--labels", street.base, *street.how, *BARE, "--save-masklets"]
        assert cli.run([str(word) for word in call]) == 0
    return out


def on_partial(street, partial: Path, out: Path, *more: object) -> list[object]:
    return ["classify", street.clip, "--out", out, "--classifier", street.classifier, "--tracker", f"stored:{partial}",
            "--window", 2, *BARE, *more]  # fmt: skip


# --- what fills what -------------------------------------------------------------------------------------------------


def test_without_a_base_masklets_alone_give_labels(street, alone):
    labels = labels_of(alone)
    assert labels.shape == (4, 60, 80)
    known = MaskletClassifier.load(MaskletClassifier.find(str(street.classifier), {})).known_classes
    assert set(np.unique(labels)) <= {*known, VOID}
    assert (labels_of(alone, "base") == VOID).all()
    settings = settings_of(alone)
    assert settings["base"] is None
    assert "base_fingerprint" not in settings
    assert (settings["combine"], settings["vote"], settings["sam2"]) == (None, "frame", None)
    assert settings["classifier"] == str(street.classifier)
    assert settings["encoder"] == "segmenter:segformer-nano/fused"
    info = json.loads((alone / "run.json").read_text())
    assert (info["command"], info["status"]) == ("classify", "done")
    assert any(name.endswith("classifier/model.safetensors") for name in info["weights"])
    assert info["label_set"]["name"] == LABEL_SPACE.name
    assert "<html" in (alone / "report.html").read_text()[:200]
    assert [file.name for file in (alone / "overlay").iterdir()] == [f"{street.names[0]}.mp4"]
    truth = labels_of(street.root, f"data/{street.names[0]}/mask")
    assert (labels == truth).mean() > 0.5  # it was trained on this very clip; measured 0.68


def test_base_labels_of_a_folder_fill_what_no_masklet_covers(street, partial, base, command, tmp_path):
    assert command(*on_partial(street, partial, tmp_path / "alone")).code == 0
    found = labels_of(tmp_path / "alone")
    assert 0.1 < (found == VOID).mean() < 0.9
    answer = command(*on_partial(street, partial, tmp_path / "filled", "--base", street.base))
    assert answer.code == 0, answer.text
    assert np.array_equal(labels_of(tmp_path / "filled"), np.where(found == VOID, base, found))
    assert np.array_equal(labels_of(tmp_path / "filled", "base"), base)
    settings = settings_of(tmp_path / "filled")
    assert settings["base"] == str(street.base.resolve())
    assert settings["base_fingerprint"] == folder_fingerprint(street.base)


def test_a_folder_without_a_label_set_is_of_the_classifiers_classes(street, partial, command, tmp_path):
    shutil.copytree(street.base, tmp_path / "maps", ignore=shutil.ignore_patterns("*.json"))
    assert command(*on_partial(street, partial, tmp_path / "one", "--base", street.base)).code == 0
    assert command(*on_partial(street, partial, tmp_path / "two", "--base", tmp_path / "maps")).code == 0
    assert np.array_equal(labels_of(tmp_path / "one"), labels_of(tmp_path / "two"))


def test_a_model_and_a_run_fill_too(street, partial, command, tmp_path):
    answer = command(*on_partial(street, partial, tmp_path / "model", "--base", "segformer-nano"))
    assert answer.code == 0, answer.text
    assert settings_of(tmp_path / "model")["base"] == "segformer-nano"
    info = json.loads((tmp_path / "model" / "run.json").read_text())
    assert "segformer-nano/model.safetensors" in info["weights"]
    assert (labels_of(tmp_path / "model") != VOID).all()
    answer = command(*on_partial(street, partial, tmp_path / "run", "--base", partial))
    assert answer.code == 0, answer.text
    assert settings_of(tmp_path / "run")["base"] == str(partial / "labels")
    assert np.array_equal(labels_of(tmp_path / "run", "base"), labels_of(partial))
    refused = command(*on_partial(street, partial, partial, "--base", partial, "--overwrite"))
    assert "--overwrite would remove the input" in refused.message
    assert len(list((partial / "labels").rglob("*.png"))) == 4


def test_colours_and_ids_are_the_classifiers_not_the_base_labels(street, partial, base, command, tmp_path):
    """Base maps with raw ids 20, 21, ... and grey for every class come out in the classifier's ids and colours."""
    other = {**LABEL_SPACE.to_dict(), "name": "grey", "ignore_ids": [0]}
    other["classes"] = [
        {"id": 20 + number, "name": name, "color": [9 + number] * 3} for number, name in enumerate(LABEL_SPACE.names)
    ]
    for file in street.base.rglob("*.png"):
        target = tmp_path / "base" / file.relative_to(street.base)
        target.parent.mkdir(parents=True, exist_ok=True)
        labels = np.asarray(Image.open(file))
        Image.fromarray(np.where(labels == VOID, 0, labels + 20).astype(np.uint8)).save(target)
    (tmp_path / "base" / "label_set.json").write_text(json.dumps(other))
    assert command(*on_partial(street, partial, tmp_path / "one", "--base", street.base)).code == 0
    answer = command(*on_partial(street, partial, tmp_path / "two", "--base", tmp_path / "base"))
    assert answer.code == 0, answer.text
    label_sets = [json.loads((tmp_path / run / "run.json").read_text())["label_set"] for run in ("one", "two")]
    assert label_sets[0] == label_sets[1] == LABEL_SPACE.to_dict()
    assert np.array_equal(labels_of(tmp_path / "two", "base"), base)
    assert np.array_equal(labels_of(tmp_path / "two"), labels_of(tmp_path / "one"))


def test_base_votes_get_a_weight(street, partial, base, command, tmp_path):
    runs = {}
    for combine in ("0", "0.5", "1", "learned"):
        out = tmp_path / combine
        answer = command(*on_partial(street, partial, out, "--base", street.base, "--combine", combine))
        assert answer.code == 0, answer.text
        runs[combine] = labels_of(out)
    learned = MaskletClassifier.load(MaskletClassifier.find(str(street.classifier), {})).vote_weight
    assert settings_of(tmp_path / "learned")["combine"] == learned
    assert settings_of(tmp_path / "0.5")["combine"] == 0.5
    assert command(*on_partial(street, partial, tmp_path / "none", "--base", street.base)).code == 0
    assert np.array_equal(runs["0"], labels_of(tmp_path / "none"))
    # nothing but the votes, frame by frame: what refine gives from the same masklets
    answer = command("refine", street.clip, "--out", tmp_path / "votes", "--labels", street.base, "--tracker",
                     f"stored:{partial}", "--window", 2, "--vote", "frame", *BARE)  # fmt: skip
    assert answer.code == 0, answer.text
    assert np.array_equal(runs["1"], labels_of(tmp_path / "votes"))
    assert not np.array_equal(runs["1"], runs["0"])


def test_the_scope_of_classes_and_the_least_share_are_as_asked(street, alone, command, tmp_path):
    assert command(*words(street, tmp_path / "window", "--vote", "window")).code == 0
    assert settings_of(tmp_path / "window")["vote"] == "window"
    assert settings_of(tmp_path / "window")["votes"]["vote"] == "window"
    assert not np.array_equal(labels_of(tmp_path / "window"), labels_of(alone))
    assert command(*words(street, tmp_path / "sure", "--min-share", 1)).code == 0
    assert (labels_of(tmp_path / "sure") == VOID).all()
    assert settings_of(tmp_path / "sure")["votes"]["min_share"] == 1
    assert command(*words(street, tmp_path / "base", "--min-share", 1, "--base", street.base)).code == 0
    assert np.array_equal(labels_of(tmp_path / "base"), labels_of(tmp_path / "base", "base"))


def test_no_masklet_at_all_is_said(street, command, tmp_path):
    call = [word if word != "superpixel" else "none" for word in words(street, tmp_path / "run")]
    assert command(*call).code == 0
    assert (labels_of(tmp_path / "run") == VOID).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SuperpixelTracker, "track", lambda self, *arguments: NoTracker().track(*arguments))
        answer = command(*words(street, tmp_path / "none"))
    assert answer.code == 0
    assert "no masklet was found, so nothing is labelled: pass --base" in answer.text
    assert (labels_of(tmp_path / "none") == VOID).all()


def test_an_encoder_that_has_moved_is_found(street, alone, command, tmp_path):
    shutil.copytree(NANO_FOLDER, tmp_path / "moved")
    encoder = f"segmenter:{tmp_path / 'moved'}/fused"
    answer = command(*words(street, tmp_path / "run", "--encoder", encoder))
    assert answer.code == 0, answer.text
    assert np.array_equal(labels_of(tmp_path / "run"), labels_of(alone))


# --- plans, shards, going on -----------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(street, command, tmp_path):
    answer = command(*words(street, tmp_path / "run", "--base", street.base, "--dry-run"))
    assert answer.code == 0, answer.text
    assert f"names {street.classifier} on features of segmenter:segformer-nano/fused" in answer.text
    assert f"base {street.base}" in answer.text
    assert list(tmp_path.iterdir()) == []
    assert "base none" in command(*words(street, tmp_path / "run", "--dry-run")).text


def test_a_plan_without_a_base_counts_none(street, command, tmp_path):
    call = ["classify", street.clip, "--out", tmp_path / "run", "--classifier", street.classifier, "--sam2", "nano"]
    shown = command(*call, "--dry-run").text
    assert "TFLOP" in shown
    assert "base labels come on top" not in shown
    assert "base labels come on top" in command(*call, "--base", street.base, "--dry-run").text


def test_a_dry_run_finds_models_that_cannot_be_had(street, command, tmp_path):
    answer = command(*words(street, tmp_path / "run", "--base", "nowhere", "--dry-run"))
    assert "'nowhere' is neither a known name, nor a folder here" in answer.message
    call = by_words(street, tmp_path / "run", "nowhere", "--labels-text", "sky,car", "--dry-run")
    assert "'nowhere' is neither a known name, nor a folder here" in command(*call).message


def test_a_dry_run_finds_base_models_that_cannot_be_loaded_and_asks_no_hub(street, command, tmp_path, monkeypatch):
    (tmp_path / "cut.pth").write_bytes(b"PK")
    answer = command(*words(street, tmp_path / "run", "--base", tmp_path / "cut.pth", "--dry-run"))
    assert "is cut short or damaged" in answer.message
    monkeypatch.setattr(hub, "_download", lambda *args: pytest.fail("the hub was asked"))
    assert command(*words(street, tmp_path / "run", "--base", "org/name", "--dry-run")).code == 0
    monkeypatch.setattr(image_text, "find_text_model", lambda name: None)
    call = by_words(street, tmp_path / "run", "any", "--labels-text", "sky,car", "--dry-run", "--base")
    assert "the base labels have 10 classes" in command(*call, "segformer-nano").message


def test_unlabelled_pixels_are_said(street, partial, command, tmp_path):
    answer = command(*on_partial(street, partial, tmp_path / "run"))
    assert "frames classified" in answer.text
    assert "flip a frame, base" not in answer.text
    covered = (labels_of(tmp_path / "run") != VOID).mean()
    assert covered < 0.5
    assert f"masklets cover {100 * covered:.1f} % of the pixels, the rest is unlabelled" in answer.text
    assert "pass --base or --tracker superpixel" in answer.text
    filled = command(*on_partial(street, partial, tmp_path / "filled", "--base", street.base))
    assert "the rest is unlabelled" not in filled.text
    assert "flip a frame, base" in filled.text


def test_shards_cover_a_data_set(street, alone, command, tmp_path):
    call = ["classify", street.root, "--out", tmp_path / "out", "--classifier", street.classifier, *street.how, *BARE]
    for shard in ("1/2", "2/2"):
        answer = command(*call, "--shard", shard)
        assert answer.code == 0, answer.text
    clips = [json.loads((tmp_path / "out" / f"shard-{i}-of-2" / "run.json").read_text())["clips"] for i in (1, 2)]
    assert [[clip["name"] for clip in some] for some in clips] == [[name] for name in street.names]
    assert np.array_equal(labels_of(tmp_path / "out" / "shard-1-of-2"), labels_of(alone))


def test_a_killed_run_goes_on_to_the_same_bits(street, alone, command, tmp_path, monkeypatch):
    """A copy of the folder as it is in the middle of the run is what a kill leaves, but for the lock of the dead."""
    starts = []
    original = SuperpixelTracker.track

    def track(self, frames, start, context=None):
        starts.append(start)
        if starts == [0, 2]:
            shutil.copytree(tmp_path / "run", tmp_path / "killed", ignore=shutil.ignore_patterns(".lock"))
        return original(self, frames, start, context)

    monkeypatch.setattr(SuperpixelTracker, "track", track)
    assert command(*words(street, tmp_path / "run", "--report", "--save-masklets")).code == 0
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "running"
    assert len((tmp_path / "killed" / "windows.jsonl").read_text().splitlines()) == 1
    answer = command(*words(street, tmp_path / "killed", "--report", "--save-masklets", "--resume"))
    assert answer.code == 0, answer.text
    assert starts == [0, 2, 2]
    assert toy.content_of_run(tmp_path / "killed") == toy.content_of_run(alone)
    assert (tmp_path / "killed" / "report.html").is_file()


def test_other_networks_and_weights_are_not_mixed_into_a_run(street, alone, command, tmp_path):
    shutil.copytree(alone, tmp_path / "run")
    answer = command(*words(street, tmp_path / "run", "--resume", "--base", street.base))
    assert "settings.base: null in the folder" in answer.message
    other = tmp_path / "classifier"
    shutil.copytree(street.classifier, other, ignore=shutil.ignore_patterns("features"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "scope": "window"}))
    answer = command(*words(street, tmp_path / "run", "--resume", "--save-masklets", classifier=other))
    assert "settings.classifier" in answer.message
    assert "settings.vote" in answer.message
    assert toy.content_of_run(tmp_path / "run") == toy.content_of_run(alone)


def test_a_run_is_replaced_only_if_asked(street, alone, command, tmp_path):
    shutil.copytree(alone, tmp_path / "run")
    call = words(street, tmp_path / "run", "--min-share", 1)
    assert "already holds a run (status done, 1 of 1 clips done)" in command(*call).message
    assert toy.content_of_run(tmp_path / "run") == toy.content_of_run(alone)
    assert command(*call, "--overwrite").code == 0
    assert (labels_of(tmp_path / "run") == VOID).all()
    assert not (tmp_path / "run" / "report.html").exists()


# --- refine --fusion -------------------------------------------------------------------------------------------------


def test_a_fusion_decides_in_place_of_the_majority(street, command, tmp_path):
    refine = ["refine", street.clip, "--labels", street.base, *street.how, *BARE]
    answer = command(*refine, "--out", tmp_path / "fusion", "--fusion", street.fusion, "--overlap", "large-on-top")
    assert answer.code == 0, answer.text
    info = json.loads((tmp_path / "fusion" / "run.json").read_text())
    assert (info["command"], info["settings"]["fusion"]) == ("refine", str(street.fusion))
    assert any(name.endswith("fusion/model.safetensors") for name in info["weights"])
    assert info["settings"]["votes"]["overlap"] == "large-on-top"
    assert command(*refine, "--out", tmp_path / "plain").code == 0
    assert settings_of(tmp_path / "plain")["fusion"] is None
    lines = [
        [json.loads(line)["masklets"] for line in (tmp_path / name / "windows.jsonl").read_text().splitlines()]
        for name in ("fusion", "plain")
    ]
    votes = [[[masklet["votes"] for masklet in masklets] for masklets in some] for some in lines]
    assert votes[0] == votes[1]  # votes stay what they are
    assert (labels_of(tmp_path / "fusion") != labels_of(tmp_path / "fusion", "base")).mean() > 0.1
    assert (
        f"fusion {street.fusion}"
        in command(*refine, "--out", tmp_path / "x", "--fusion", street.fusion, "--dry-run").text
    )
    resumed = command(*refine, "--out", tmp_path / "plain", "--fusion", street.fusion, "--resume")
    assert "settings.fusion: null in the folder" in resumed.message


def test_a_fusion_of_a_street_serves_other_labels(street, command, tmp_path):
    toy.write_toy_frames(tmp_path / "frames", 4)
    toy.write_toy_labels(tmp_path / "labels", 4, 0.3)
    (tmp_path / "labels" / "label_set.json").write_text(json.dumps(toy.CLASSES.to_dict()))
    answer = command("refine", tmp_path / "frames", "--labels", tmp_path / "labels", "--out", tmp_path / "run", *BARE,
                     "--tracker", "superpixel", "--fusion", street.fusion)  # fmt: skip
    assert answer.code == 0, answer.text
    assert labels_of(tmp_path / "run").max() < 4


WRONG_FUSION = [
    (["--fusion", "CLASSIFIER"], "'sam2vss masklet classifier 1', expected 'sam2vss masklet fusion 1'"),
    (["--fusion", "SEGFORMER"], "of type 'segformer', expected 'sam2vss masklet fusion 1' (made by `sam2vss train`)"),
    (["--fusion", "nowhere/fusion"], "nowhere/fusion"),
    (["--fusion", "FUSION", "--vote", "frame"], "--fusion decides: drop one"),
    (["--fusion", "FUSION", "--min-share", "0.5"], "--fusion decides: drop one"),
    (["--fusion", "FUSION", "--vote-weight", "probability"], "--fusion decides: drop one"),
    (
        ["--fusion", "FUSION", "--tracker", "sam2", "--sam2", "nano", "--skip-settled"],
        "drop masklets by the base votes",
    ),
]


@pytest.mark.parametrize(("more", "message"), WRONG_FUSION, ids=in_short)
def test_a_fusion_that_does_not_fit_is_named(street, command, tmp_path, more, message):
    places = {"CLASSIFIER": street.classifier, "FUSION": street.fusion, "SEGFORMER": NANO_FOLDER}
    how = [] if "--tracker" in more else ["--tracker", "superpixel"]
    answer = command("refine", street.clip, "--labels", street.base, "--out", tmp_path / "run", *how,
                     *(places.get(word, word) for word in more))  # fmt: skip
    assert message in answer.message
    assert list(tmp_path.iterdir()) == []


# --- classes in words ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> Path:
    return save_tiny_image_text("clip", tmp_path_factory.mktemp("text") / "tiny-clip")


def by_words(street, out: Path, text_model: Path, *more: object) -> list[object]:
    return ["classify", street.clip, "--out", out, "--text-model", text_model, "--tracker", "superpixel", *BARE, *more]


def test_classes_are_named_in_words(street, command, text_model, tmp_path):
    text = "sky=sky|clouds,person,red car"
    answer = command(*by_words(street, tmp_path / "run", text_model, "--labels-text", text, "--views", 1))
    assert answer.code == 0, answer.text
    assert set(np.unique(labels_of(tmp_path / "run"))) <= {0, 1, 2, VOID}
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    settings = info["settings"]
    assert [entry["name"] for entry in info["label_set"]["classes"]] == ["sky", "person", "red car"]
    assert (settings["text_model"], settings["text"]["views"], settings["vote"]) == (str(text_model), 1, "window")
    assert settings["base"] is None
    assert "clouds" in json.dumps(settings["vocabulary"])
    assert any(name.endswith("tiny-clip/model.safetensors") for name in info["weights"])
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("classes:\n  sky: [sky, clouds]\n  person:\n  red car:\n")
    answer = command(*by_words(street, tmp_path / "again", text_model, "--prompts", prompts, "--views", 1))
    assert answer.code == 0, answer.text
    assert np.array_equal(labels_of(tmp_path / "run"), labels_of(tmp_path / "again"))
    dry = command(*by_words(street, tmp_path / "dry", text_model, "--prompts", prompts, "--dry-run"))
    assert f"names {text_model} by words for 3 classes" in dry.text


def test_base_labels_of_the_same_words_fill(street, command, text_model, tmp_path):
    names = ",".join(LABEL_SPACE.names)
    call = by_words(
        street, tmp_path / "run", text_model, "--labels-text", names, "--base", street.base, "--min-share", 1
    )
    answer = command(*call, "--views", 1, "--crop-weight", 1)
    assert answer.code == 0, answer.text
    assert np.array_equal(labels_of(tmp_path / "run"), labels_of(tmp_path / "run", "base"))


def test_the_classes_of_a_label_set_are_looked_for(street, command, text_model, tmp_path):
    (tmp_path / "prompts.yaml").write_text("classes:\n  sky: [clouds]\n")
    call = by_words(street, tmp_path / "run", text_model, "--prompts", tmp_path / "prompts.yaml", "--label-set",
                    street.root / "label_set.json", "--views", 1, "--crop-weight", 1)  # fmt: skip
    answer = command(*call)
    assert answer.code == 0, answer.text
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["label_set"]["name"] == LABEL_SPACE.name
    assert len(info["settings"]["vocabulary"]["classes"]) == 10


# --- messages --------------------------------------------------------------------------------------------------------

CLASSIFIER = ["--classifier", "CLASSIFIER"]
TEXT = ["--labels-text", "sky,car"]
WRONG = [
    ([], "pass either --classifier, or classes in words with --labels-text or --prompts"),
    ([*CLASSIFIER, *TEXT], "pass either --classifier, or classes in words with --labels-text or --prompts"),
    ([*CLASSIFIER, "--combine", "0.5"], "--combine weighs base votes, and there is no base: pass --base"),
    ([*CLASSIFIER, "--base", "BASE", "--combine", "much"], '--combine much is neither "learned" nor a weight from 0'),
    ([*CLASSIFIER, "--base", "BASE", "--combine", "1.5"], '--combine 1.5 is neither "learned" nor a weight from 0'),
    ([*CLASSIFIER, "--base", "BASE", "--combine", "nan"], '--combine nan is neither "learned" nor a weight from 0'),
    (["--classifier", "UNVOTED", "--base", "BASE", "--combine", "learned"], "pass a number, such as --combine 0.5"),
    (["--classifier", "FUSION"], "'sam2vss masklet fusion 1', expected 'sam2vss masklet classifier 1'"),
    (["--classifier", "SEGFORMER"], "of type 'segformer', expected 'sam2vss masklet classifier 1' (made by"),
    (["--classifier", "nowhere/classifier"], "nowhere/classifier"),
    ([*CLASSIFIER, "--base", "OTHERS"], "(numbered), the classifier names 10 (synthetic_street); first difference"),
    ([*CLASSIFIER, "--base", "nowhere/base"], "nowhere/base"),
    ([*CLASSIFIER, "--label-set", "SET"], "--label-set says what base labels mean, and there are none: pass --base"),
    ([*CLASSIFIER, "--encoder", "segmenter:segformer-nano/stage1"], "Take the encoder it was trained with"),
    ([*CLASSIFIER, "--encoder", "nonsense"], "nonsense"),
    ([*CLASSIFIER, "--smooth", "static"], "--smooth is for base labels, and there are none: pass --base"),
    ([*CLASSIFIER, "--text-model", "x"], "--text-model, --views, --crop-weight, --margin and --fade go with classes"),
    ([*CLASSIFIER, "--views", "2"], "--text-model, --views, --crop-weight, --margin and --fade go with classes"),
    ([*CLASSIFIER, "--min-share", "2"], "--min-share 2"),
    ([*CLASSIFIER, "--tracker", "sam2", "--sam2", "nano", "--skip-settled"], "drop masklets by the base"),
    ([*CLASSIFIER, "--tracker", "sam2", "--sam2", "nano", "--drop-contained"], "something else names them"),
    (["--classifier", "WINDOW", "--vote", "frame"], "so it has no class per frame: leave --vote out"),
    ([*TEXT, "--base", "BASE", "--combine", "0.5"], "go with --classifier, not with classes in words"),
    ([*TEXT, "--vote", "frame"], "go with --classifier, not with classes in words"),
    ([*TEXT, "--prompts", "PROMPTS"], "--labels-text names the classes itself: leave --prompts and --label-set out"),
    ([*TEXT, "--label-set", "SET"], "--labels-text names the classes itself: leave --prompts and --label-set out"),
    ([*TEXT, "--text-model", "TEXT", "--base", "BASE"], "first difference, base / classifier, is 1: building / car"),
    (["--labels-text", "sky,,car"], "class 2 of 3 in 'sky,,car' has no name: expected names with commas between"),
    (["--labels-text", "sky,sky"], "class 'sky' is there twice"),
    (["--labels-text", "sky=,car"], "class 'sky' has an empty phrase"),
    (["--labels-text", " "], "an empty value was given after --labels-text"),
    (["--prompts", "nowhere.yaml"], "cannot read the prompts nowhere.yaml"),
    ([*TEXT, "--text-model", "CLASSIFIER"], "classifier"),
    ([*TEXT, "--text-model", "TEXT", "--views", "0"], "--views 0"),
]


@pytest.mark.parametrize(("more", "message"), WRONG, ids=in_short)
def test_what_does_not_fit_is_named_and_nothing_is_written(street, command, text_model, tmp_path, more, message):
    places = {"CLASSIFIER": street.classifier, "FUSION": street.fusion, "BASE": street.base, "SEGFORMER": NANO_FOLDER}
    places |= {"SET": street.root / "label_set.json", "TEXT": text_model, "PROMPTS": tmp_path / "in" / "prompts.txt"}
    for name in ("UNVOTED", "WINDOW", "OTHERS"):
        places[name] = tmp_path / "in" / name
    (tmp_path / "in").mkdir()
    places["PROMPTS"].write_text("sky\n")
    for name, changes in (("UNVOTED", {"vote_weight": None}), ("WINDOW", {"scope": "window"})):
        if name in more:
            shutil.copytree(street.classifier, places[name], ignore=shutil.ignore_patterns("features"))
            config = json.loads((places[name] / "config.json").read_text())
            (places[name] / "config.json").write_text(json.dumps({**config, **changes}))
    if "OTHERS" in more:
        shutil.copytree(street.base, places["OTHERS"])
        others = {**LabelSpace.numbered(10).to_dict(), "name": "numbered"}
        (places["OTHERS"] / "label_set.json").write_text(json.dumps(others))
    how = [] if "--tracker" in more else ["--tracker", "superpixel"]
    answer = command("classify", street.clip, "--out", tmp_path / "run", *how, *(places.get(w, w) for w in more))
    assert message in answer.message
    assert not (tmp_path / "run").exists()


def test_help_names_every_option(command):
    answer = command("classify", "--help")
    assert answer.code == 0
    for option in ("--classifier", "--labels-text", "--prompts", "--text-model", "--base", "--combine", "--encoder",
                   "--vote", "--min-share", "--views", "--resume", "--dry-run"):  # fmt: skip
        assert option in answer.out
