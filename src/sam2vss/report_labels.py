"""Which label sets the page about a run shows, and what it calls them.

The one place where the page tells kinds of runs apart: `refine` has base and refined labels, `classify` has classified
labels, with base labels or without.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_TONES = 5  # colours for further label sets (report_page.css); a sixth set has the colour of the first again


@dataclass(frozen=True)
class LabelWords:
    """How the page speaks of a run's labels.

    Attributes:
        result: What the labels of the run are called: "refined" or "classified".
        has_base: Whether the run started from base labels. If not, its folder `base` is void and not worth a look.
        decides: Whether a network decided on classes, not the majority of votes.
    """

    result: str
    has_base: bool
    decides: bool = False

    @property
    def maker(self) -> str:
        """Return what made the labels of the run."""
        return "classifier" if self.result == "classified" else "refinement"

    @property
    def confidence(self) -> str:
        """Return what says how sure a masklet's class is."""
        return "confidence" if self.decides else "vote share"

    @property
    def abstained(self) -> str:
        """Return what becomes of the pixels of a masklet without a class."""
        return "base labels stay" if self.has_base else "stays unlabelled"


def label_words(info: Mapping[str, Any]) -> LabelWords:
    """Tell from a `run.json` how to speak of its labels.

    A run of `classify`, or one inside a demo whose settings name a classifier, has classified labels; it has no base
    labels where its settings say `base: None`. All others have base and refined labels.
    """
    found = info.get("settings")
    settings: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    command = info.get("command")
    is_classified = command == "classify" or (command == "demo" and bool(settings.get("classifier")))
    if not is_classified:
        return LabelWords("refined", has_base=True, decides=bool(settings.get("fusion")))
    return LabelWords("classified", has_base=settings.get("base", "") is not None, decides=True)


@dataclass(frozen=True)
class LabelSet:
    """A folder of label maps `<video>/<frame>.png` that the viewer shows as a panel.

    Attributes:
        key: Its name inside the page: "base", "refined", "truth", "further-1", ...
        name: Its name in legends and warnings.
        title: The title of its panel.
        folder: Where the maps lie.
        root: Links may not lead out of this folder: the run, or that of further labels.
        tone: Its colour, a class of report_page.css.
    """

    key: str
    name: str
    title: str
    folder: Path
    root: Path
    tone: str

    @property
    def is_further(self) -> bool:
        """Tell whether these labels are not of the run itself."""
        return self.key.startswith("further-")

    @property
    def place(self) -> str:
        """Return where a warning says that a file lies."""
        return f"of {self.name}" if self.is_further else f"in {self.folder.name}/"


def label_sets(run_dir: Path, words: LabelWords, others: Mapping[str, Path]) -> tuple[LabelSet, ...]:
    """Return the label sets in the order of their panels: base, the run's own, the others, truth."""

    def own(key: str, name: str, title: str, folder: str) -> LabelSet:
        return LabelSet(key, name, title, run_dir / folder, root=run_dir, tone=key)

    base = own("base", "base", "Base labels", "base")
    result = own("refined", words.result, f"{words.result.capitalize()} labels", "labels")
    further = (
        LabelSet(f"further-{i + 1}", name, name, folder, root=folder, tone=f"tone-{i % NUM_TONES + 1}")
        for i, (name, folder) in enumerate(others.items())
    )
    truth = own("truth", "truth", "Ground truth", "truth")
    return (*((base,) if words.has_base else ()), result, *further, truth)


def tones_by_name(sets: Iterable[LabelSet]) -> dict[str, str]:
    """Return the colours of further label sets, so that the table of scores gives them the same."""
    return {labels.name: labels.tone for labels in sets if labels.is_further}
