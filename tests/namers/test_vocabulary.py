from pathlib import Path

import numpy as np
import pytest

from sam2vss.datasets.label_sets import find_label_space
from sam2vss.errors import LabelError
from sam2vss.namers.vocabulary import TEMPLATES, Vocabulary, as_words
from sam2vss.types import LabelSpace, voc_palette


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_names_between_commas_are_their_own_phrases():
    vocabulary = Vocabulary.from_text("sky, person ,red car")
    assert vocabulary.label_space.names == ("sky", "person", "red car")
    assert vocabulary.phrases == (("sky",), ("person",), ("red car",))
    assert vocabulary.templates == TEMPLATES
    assert vocabulary.label_space.name == "text"
    assert vocabulary.label_space.palette.tolist() == voc_palette(4)[1:].tolist()


def test_phrases_behind_a_name_count_alone():
    vocabulary = Vocabulary.from_text("who=person|man in a coat,sky")
    assert vocabulary.label_space.names == ("who", "sky")
    assert vocabulary.phrases == (("person", "man in a coat"), ("sky",))


def test_more_than_255_classes_get_wide_labels():
    vocabulary = Vocabulary.from_text(",".join(f"thing {i}" for i in range(300)))
    assert vocabulary.label_space.dtype == np.uint16
    assert len({tuple(color) for color in vocabulary.label_space.palette.tolist()}) > 250


def test_yaml_gives_phrases_templates_and_colours(tmp_path):
    text = """
classes:
  sky: [sky, clouds]
  car:
  other: everything else
templates: ["a photo of a {}.", "a {} in a street"]
colors: {car: [1, 2, 3]}
name: street
"""
    vocabulary = Vocabulary.from_file(write(tmp_path, "prompts.yaml", text))
    assert vocabulary.label_space.names == ("sky", "car", "other")
    assert vocabulary.phrases == (("sky", "clouds"), ("car",), ("everything else",))
    assert vocabulary.templates == ("a photo of a {}.", "a {} in a street")
    assert vocabulary.label_space.palette.tolist() == [
        voc_palette(2)[1].tolist(),
        [1, 2, 3],
        voc_palette(4)[3].tolist(),
    ]
    assert vocabulary.label_space.name == "street"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"classes": {"sky": ["sky", "clouds"], "car": []}}'),
        ("a.yml", "classes:\n  sky: [sky, clouds]\n  car: []\n"),
        ("a.txt", "# what there is\nsky=sky|clouds\n\n  car\n"),
        ("a.labels", "\ufeffsky=sky|clouds\r\ncar\r\n"),
    ],
)
def test_all_kinds_of_files_say_the_same(name, text, tmp_path):
    vocabulary = Vocabulary.from_file(write(tmp_path, name, text))
    assert vocabulary.to_dict() == {"classes": {"sky": ["sky", "clouds"], "car": ["car"]}, "templates": [*TEMPLATES]}


def test_a_list_of_names_is_enough(tmp_path):
    assert Vocabulary.from_file(write(tmp_path, "a.json", '{"classes": ["sky", "car"]}')).phrases == (
        ("sky",),
        ("car",),
    )


def test_names_of_a_label_set_become_words():
    space = find_label_space("vspw")
    vocabulary = Vocabulary.from_label_space(space)
    assert vocabulary.label_space is space  # raw ids, void and colours stay
    phrases = dict(zip(space.names, vocabulary.phrases, strict=True))
    assert phrases["other_machine"] == ("other machine",)
    assert phrases["Mobile_phone"] == ("mobile phone",)
    assert len(vocabulary.phrases) == 124
    assert as_words("__") == "__"


def test_prompts_fill_in_phrases_for_some_classes_of_a_label_set():
    space = LabelSpace(("sky", "big_car"), voc_palette(2), raw_ids=(4, 9), raw_void=(0,))
    prompts = Vocabulary.from_phrases([("big_car", ["truck", "bus"])], ["the {}"])
    vocabulary = Vocabulary.from_label_space(space, prompts)
    assert vocabulary.phrases == (("sky",), ("truck", "bus"))
    assert vocabulary.templates == ("the {}",)
    assert vocabulary.label_space.raw_ids == (4, 9)
    with pytest.raises(
        LabelError, match=r"classes that the label set in use has not: boat\. Its classes: sky, big_car"
    ):
        Vocabulary.from_label_space(space, Vocabulary.from_text("sky,boat"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "class 1 of 1 in '' has no name: expected names with commas"),
        ("sky,,car", "class 2 of 3"),
        ("sky,=cloud", "class 2 of 2"),
        ("sky=", "class 'sky' has an empty phrase"),
        ("sky=cloud||fog", "class 'sky' has an empty phrase"),
        ("sky,Sky", "class 'Sky' is there twice"),
        ("sky,a=fog|  FOG", "phrase 'FOG' is there twice, in class 'a'"),
        ("sky,air=Sky", "phrase 'Sky' is there twice, for 'sky' and for 'air': each phrase can mean one class only"),
        (",".join(f"c{i}" for i in range(65536)), "needs 1 to 65535 classes, found 65536"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(LabelError, match=message):
        Vocabulary.from_text(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "classes: [sky", "a.yaml cannot be used: it is no valid YAML: "),
        ("a.json", "{", "it is no valid JSON: "),
        ("a.json", "[1]", "it holds no classes; expected {"),
        ("a.yaml", "", "it holds no classes"),
        ("a.yaml", "classes: {}", "it holds no classes"),
        ("a.yaml", "classes: []", "it holds no classes"),
        ("a.yaml", "classes: 3", "classes are 3, expected a list of texts"),
        ("a.yaml", "classes: {sky: 3}", "the phrases of 'sky' are 3, expected a list of texts"),
        ("a.yaml", "classes: {sky: no}", "the phrases of 'sky' are False, expected a list of texts; put words"),
        ("a.yaml", "classes: {no: [sky]}", "a class is named False, expected text; put names such as no"),
        ("a.yaml", "classes: {sky: [a], sky: [b]}", "'sky' is there twice"),
        ("a.json", '{"classes": {"sky": [], "sky": []}}', "'sky' is there twice"),
        ("a.yaml", "classes: {[a]: b}", r"\['a'\] stands where a name is expected"),
        ("a.yaml", "classes: {sky: ['']}", "class 'sky' has an empty phrase"),
        ("a.yaml", "classes: {sky: }\ntemplate: x", r"unknown keys \(template\), expected classes, templates, col"),
        ("a.yaml", "classes: {sky: }\ntemplates: [a photo]", r"template 'a photo' has no {}, the place of the phrase"),
        ("a.yaml", "classes: {sky: }\ntemplates: []", "there are no templates"),
        ("a.yaml", "classes: {sky: }\ntemplates:", "templates are None, expected a list of texts"),
        ("a.yaml", "classes: {sky: }\ncolors: {car: [1, 2, 3]}", "a colour for 'car', which is no class; classes: sky"),
        ("a.yaml", "classes: {sky: }\ncolors: {sky: [1, 2, 256]}", r"colour of 'sky' is \[1, 2, 256\], expected three"),
        ("a.yaml", "classes: {sky: }\ncolors: {sky: red}", "colors are not understood"),
        ("a.yaml", "&x {classes: *x}", "the phrases of 'classes' are {'classes': {...}}, expected a list"),
        ("a.txt", "# nothing\n", "a.txt cannot be used: there is no class in it"),
        ("a.txt", "sky\nsky\n", "class 'sky' is there twice"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused(name, text, message, tmp_path):
    with pytest.raises(LabelError, match=message):
        Vocabulary.from_file(write(tmp_path, name, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"cannot read the prompts .*none\.yaml: No such file"):
        Vocabulary.from_file(tmp_path / "none.yaml")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00s")
    with pytest.raises(LabelError, match=r"a\.txt are no text in UTF-8"):
        Vocabulary.from_file(tmp_path / "a.txt")


def test_braces_in_a_phrase_are_left_alone():
    assert Vocabulary.from_text("set {x}").phrases == (("set {x}",),)
