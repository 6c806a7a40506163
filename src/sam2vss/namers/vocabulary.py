"""The classes of an open vocabulary: names, the phrases that mean them, and the sentences phrases are put into.

Read from a line of text (`--labels-text`), a file of prompts or a label set; `namers/text.py` lets a model of images
and text compare them with masklets.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import LabelError
from ..types import LabelSpace, voc_palette

TEMPLATES = ("a photo of a {}.",)  # Radford et al. 2021, "Learning Transferable Visual Models ...", Sec. 3.1.4
STRUCTURED = (".yaml", ".yml", ".json")
KEYS = ("classes", "templates", "colors", "name")
FORM = 'expected {"classes": {"sky": ["sky", "clouds"], "car": []}, "templates": ["a photo of a {}."]}'
SET_NAME = "text"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """C classes and what they are called.

    Attributes:
        label_space: Names, colours and numbers of the classes.
        phrases: For each class the phrases that mean it, one or more; no phrase means two classes.
        templates: Sentences in which {} stands for the phrase.
    """

    label_space: LabelSpace
    phrases: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...] = TEMPLATES

    def __post_init__(self) -> None:
        names = self.label_space.names
        assert len(self.phrases) == len(names), (len(self.phrases), len(names))
        _check_distinct("class", names, names)
        for name, phrases in zip(names, self.phrases, strict=True):
            if not phrases or not all(phrase.strip() for phrase in phrases):
                raise LabelError(f"class {name!r} has an empty phrase: give words, or leave the phrases out")
        owners = [name for name, phrases in zip(names, self.phrases, strict=True) for _ in phrases]
        _check_distinct("phrase", [phrase for phrases in self.phrases for phrase in phrases], owners)
        if not self.templates:
            raise LabelError(f"there are no templates: give one or more such as {TEMPLATES[0]!r}, or leave them out")
        for template in self.templates:
            if "{}" not in template:
                raise LabelError(
                    f"template {template!r} has no {{}}, the place of the phrase; expected a sentence such as "
                    f"{TEMPLATES[0]!r}"
                )

    @classmethod
    def from_text(cls, text: str) -> "Vocabulary":
        """Read classes from one line: "sky, person=person|pedestrian, red car".

        A class without phrases is its own phrase. With phrases these alone count, so the name can be any word.

        Raises:
            LabelError: If a name or phrase is missing, or there twice.
        """
        named: list[tuple[str, list[str] | None]] = []
        entries = text.split(",")
        for position, entry in enumerate(entries, start=1):
            name, equals, phrases = (part.strip() for part in entry.partition("="))
            if not name:
                raise LabelError(
                    f"class {position} of {len(entries)} in {text!r} has no name: expected names with commas between "
                    'them, such as "sky,person=person|pedestrian,red car"'
                )
            named.append((name, [phrase.strip() for phrase in phrases.split("|")] if equals else None))
        return cls.from_phrases(named)

    @classmethod
    def from_phrases(
        cls,
        named: Sequence[tuple[str, Sequence[str] | None]],
        templates: Sequence[str] = TEMPLATES,
        colors: Mapping[str, Sequence[int]] | None = None,
        name: str = SET_NAME,
    ) -> "Vocabulary":
        """Make a vocabulary of names with their phrases; None: the name's own words.

        Args:
            named: In the order of the train ids.
            templates: See `Vocabulary`.
            colors: RGB by class name; other classes get those of the PASCAL VOC palette.
            name: Name of the label set.

        Raises:
            LabelError: If classes, phrases, templates or colours cannot be used.
        """
        names = tuple(class_name for class_name, _ in named)
        palette = voc_palette(len(names) + 1)[1:]
        for class_name, color in (colors or {}).items():
            if class_name not in names:
                raise LabelError(f"there is a colour for {class_name!r}, which is no class; classes: {_some(names)}")
            if len(color) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in color):
                raise LabelError(f"the colour of {class_name!r} is {color}, expected three integers 0..255")
            palette[names.index(class_name)] = np.array(color)
        space = LabelSpace(names, palette, name=name)
        phrases = tuple(tuple(own) if own is not None else (as_words(class_name),) for class_name, own in named)
        return cls(space, phrases, tuple(templates))

    @classmethod
    def from_file(cls, path: Path) -> "Vocabulary":
        """Read a file of prompts.

        YAML or JSON: `classes` maps names to lists of phrases (none: the name), or is a list of names; `templates`,
        `colors` (RGB by class) and `name` may stand beside it. Any other ending is plain text: one class a line in the
        form of `from_text`; lines that begin with # are passed over.

        Raises:
            LabelError: If it cannot be read or has another form.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise LabelError(f"cannot read the prompts {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise LabelError(f"the prompts {path} are no text in UTF-8: {error}") from error
        try:
            if path.suffix.lower() in STRUCTURED:
                return _from_content(_parse(text, path))
            lines = [line.strip() for line in text.splitlines()]
            lines = [line for line in lines if line and not line.startswith("#")]
            if not lines:
                raise LabelError("there is no class in it")
            return cls.from_text(",".join(lines))
        except LabelError as error:
            raise LabelError(f"the prompts {path} cannot be used: {error}") from error

    @classmethod
    def from_label_space(cls, label_space: LabelSpace, prompts: "Vocabulary | None" = None) -> "Vocabulary":
        """Make a vocabulary of a label set, whose numbers and colours it keeps.

        Args:
            label_space: Its names become words: "other_machine" is "other machine".
            prompts: Phrases for some or all of its classes, and templates.

        Raises:
            LabelError: If names are not distinct, or `prompts` has classes that the label set has not.
        """
        own = dict(zip(prompts.label_space.names, prompts.phrases, strict=True)) if prompts else {}
        unknown = [name for name in own if name not in label_space.names]
        if unknown:
            raise LabelError(
                f"the prompts have classes that the label set {label_space.name or 'in use'} has not: "
                f"{_some(unknown)}. Its classes: {_some(label_space.names)}"
            )
        phrases = tuple(own.get(name, (as_words(name),)) for name in label_space.names)
        return cls(label_space, phrases, prompts.templates if prompts else TEMPLATES)

    def to_dict(self) -> dict[str, Any]:
        """Return names, phrases and templates for a run's record."""
        named = zip(self.label_space.names, self.phrases, strict=True)
        return {"classes": {name: list(phrases) for name, phrases in named}, "templates": list(self.templates)}


def as_words(name: str) -> str:
    """Turn a class name into words: underscores become spaces."""
    return " ".join(name.replace("_", " ").split()).lower() or name


def _check_distinct(what: str, texts: Sequence[str], owners: Sequence[str]) -> None:
    """Refuse equal texts, whatever their case and spaces; `owners` are the classes they belong to."""
    seen: dict[str, str] = {}
    for text, owner in zip(texts, owners, strict=True):
        key = " ".join(text.casefold().split())
        if key in seen and what == "class":
            raise LabelError(f"class {text!r} is there twice: every name must be another one")
        if key in seen:
            both = f"in class {owner!r}" if seen[key] == owner else f"for {seen[key]!r} and for {owner!r}"
            raise LabelError(f"phrase {text!r} is there twice, {both}: each phrase can mean one class only")
        seen[key] = owner


def _parse(text: str, path: Path) -> Any:
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_without_doubles)
        return yaml.load(text, _Loader)  # a SafeLoader
    except (ValueError, AttributeError, yaml.YAMLError, RecursionError) as error:  # a broken date is an AttributeError
        raise LabelError(f"it is no valid {path.suffix[1:].upper()}: {error}") from error


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that is there twice, where YAML's own would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        return _without_doubles(
            [(self.construct_object(k, True), self.construct_object(v, True)) for k, v in node.value]
        )


def _without_doubles(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    content: dict[Any, Any] = {}
    for key, value in pairs:
        if isinstance(key, list | dict | set):
            raise LabelError(f"{key!r} stands where a name is expected")
        if key in content:
            raise LabelError(f"{key!r} is there twice")
        content[key] = value
    return content


def _from_content(content: Any) -> Vocabulary:
    if not isinstance(content, dict) or "classes" not in content:
        raise LabelError(f"it holds no classes; {FORM}")
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise LabelError(f"it has unknown keys ({_some(unknown)}), expected {', '.join(KEYS)}")
    classes = content["classes"]
    entries = (
        list(classes.items()) if isinstance(classes, dict) else [(name, None) for name in _texts("classes", classes)]
    )
    if not entries:
        raise LabelError(f"it holds no classes; {FORM}")
    named = []
    for name, phrases in entries:
        if not isinstance(name, str) or not name.strip():
            raise LabelError(f"a class is named {name!r}, expected text; put names such as no, on or 1 in quotes")
        listed = _texts(f"the phrases of {name!r}", [] if phrases is None else phrases)
        named.append((name.strip(), [phrase.strip() for phrase in listed] or None))
    colors = content.get("colors") or {}
    if not isinstance(colors, dict) or not all(isinstance(color, list) for color in colors.values()):
        raise LabelError("colors are not understood, expected {class: [r, g, b], ...}")
    templates = _texts("templates", content["templates"]) if "templates" in content else TEMPLATES
    return Vocabulary.from_phrases(named, templates, colors, str(content.get("name") or SET_NAME))


def _texts(what: str, value: Any) -> list[str]:
    """Return a text, or a list of them, as a list."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise LabelError(f"{what} are {value!r}, expected a list of texts; put words such as no, on or 1 in quotes")
    return values


def _some(names: Sequence[Any]) -> str:
    return ", ".join(str(name) for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
