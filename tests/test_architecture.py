"""Imports point down only, and `sam2vss --help` loads no heavy library."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "sam2vss"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE

# Who may import whom. A unit is a file or a folder directly under the package; inside a folder all may import each
# other. A new file is entered here, on the lowest layer that does.
LOWEST = {"types", "errors", "interfaces", "settings"}
PURE = LOWEST | {"mask_runs", "voting", "pooling", "metrics", "flow", "smoothing", "prefetch"}
FILES = LOWEST | {
    "versions",
    "devices",
    "files",
    "images",
    "videos",
    "media",
    "hub",
    "checkpoints",
    "overlay",
    "masklet_files",
}
FEATURES = {"masklet_features", "describe", "classifiers", "namers"}
RUN_FOLDER = {"records", "run_info", "run_files", "artifacts"}
ADAPTERS = RUN_FOLDER | {"segmenters", "trackers", "datasets", "sam2", "encoders"}
METHOD = PURE | FILES | ADAPTERS | FEATURES | {"pipeline", "evaluate", "evaluation_tables", "video_counts"}
BOARDS = {"boards", "page_tables", "counts_files", "dataset_clips"}
MAY_IMPORT: dict[str, set[str]] = {
    "types": LOWEST,
    "errors": LOWEST,
    "interfaces": LOWEST,
    "settings": LOWEST,
    # pure maths: no files, no models
    "mask_runs": LOWEST,
    "voting": LOWEST | {"mask_runs"},
    "pooling": LOWEST,
    "metrics": LOWEST | {"flow"},
    "flow": LOWEST,
    "smoothing": LOWEST | {"flow"},
    "prefetch": LOWEST,
    # the machine, and bytes in and out
    "versions": LOWEST,
    "devices": LOWEST,
    "files": LOWEST,
    "images": LOWEST | {"files"},
    "videos": LOWEST | {"files", "images"},
    "media": LOWEST | {"files", "images", "videos"},
    "hub": LOWEST | {"files"},
    "checkpoints": LOWEST,
    "overlay": LOWEST | {"files", "images", "videos", "media"},
    "masklet_files": LOWEST | {"files"},
    # models, data sets, run folders; none knows another
    "records": FILES,
    "run_info": FILES,
    "run_files": FILES | {"run_info"},
    "artifacts": FILES | {"records", "run_info", "run_files"},
    "segmenters": FILES,
    "trackers": FILES | {"flow", "mask_runs"},
    "datasets": FILES,
    "sam2": FILES,
    "encoders": FILES | {"sam2", "segmenters"},  # the feature maps of both
    # what is known of masklets, and who names them by it
    "masklet_features": FILES,
    "describe": PURE | {"masklet_features"},
    "classifiers": FILES | {"masklet_features", "pooling"},
    "namers": PURE | FILES | {"masklet_features", "describe", "classifiers", "encoders"},
    # the method, and what stands on it
    "pipeline": PURE | FILES | RUN_FOLDER,
    "evaluation_tables": LOWEST | {"metrics"},
    "video_counts": LOWEST | {"metrics", "datasets"},
    "evaluate": PURE | FILES | RUN_FOLDER | {"datasets", "evaluation_tables", "video_counts"},
    "evaluate_panoptic": PURE | FILES | RUN_FOLDER | {"datasets"},
    "stability": PURE | FILES | RUN_FOLDER | {"datasets"},
    "report_labels": LOWEST,
    "report_data": FILES | RUN_FOLDER | {"report_labels"},
    "report_frames": FILES | RUN_FOLDER | {"report_labels", "report_data"},
    "report_scores": FILES | RUN_FOLDER | {"report_labels", "report_data", "page_tables"},
    "report": FILES | RUN_FOLDER | {"report_labels", "report_data", "report_frames", "report_scores", "page_tables"},
    "refiner": METHOD,
    "segmentor": METHOD | {"refiner"},
    # tables of many rows
    "page_tables": LOWEST,
    "boards": FILES | {"metrics", "page_tables"},
    "counts_files": FILES,
    "dataset_clips": FILES | {"datasets"},
    "bench": METHOD | BOARDS | {"refiner", "segmentor"},
    "ablate": METHOD | BOARDS | {"refiner"},
    "training": METHOD | {"dataset_clips"},
    # what a person meets
    "__init__": METHOD | {"refiner", "segmentor"},
    "console": LOWEST | {"pipeline"},
    "plan": METHOD | {"refiner", "console"},
    "doctor": FILES,
    "demo": METHOD | {"refiner", "segmentor", "report"},
    "cli": METHOD
    | BOARDS
    | {"refiner", "segmentor", "training", "report", "demo", "doctor", "console", "plan", "__init__"}
    | {"evaluate_panoptic", "stability", "bench", "ablate"},
    "__main__": {"cli"},
}
HEAVY = {"torch", "transformers", "av", "huggingface_hub", "ray", "gradio", "peft", "matplotlib"}
LIGHT_ENTRIES = ["cli", "settings", "types", "errors", "interfaces"]  # what `--help` and scripts load first


@dataclass(frozen=True)
class Import:
    """One imported module, in full, and the file and line that ask for it; `is_lazy` inside functions."""

    module: str
    path: Path
    line: int
    is_lazy: bool


def read_imports(path: Path, source: Path) -> Iterator[Import]:
    """Yield the imports of one file, relative ones resolved; those for type checkers only count as lazy."""
    package = [source.name, *path.relative_to(source).parent.parts]

    def visit(node: ast.AST, is_lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, path, node.lineno, is_lazy)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # the name may be a submodule: `from . import pipeline`
                full = f"{module}.{alias.name}"
                yield Import(full if find_file(full, source) else module, path, node.lineno, is_lazy)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, is_lazy or is_function or is_for_types)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def find_file(module: str, source: Path) -> Path | None:
    """Return the file of one of our modules, None for all others."""
    first, *rest = module.split(".")
    if first != source.name:
        return None
    base = source.joinpath(*rest)
    candidates = [base / "__init__.py", base.with_suffix(".py")] if rest else [source / "__init__.py"]
    return next((path for path in candidates if path.is_file()), None)


def find_unit(path: Path, source: Path) -> str:
    """Return the file or folder directly under the package that `path` belongs to."""
    return path.relative_to(source).parts[0].removesuffix(".py")


def find_wrong_arrows(source: Path) -> list[str]:
    wrong = []
    for path in sorted(source.rglob("*.py")):
        unit = find_unit(path, source)
        if unit not in MAY_IMPORT:
            wrong.append(f"{path.relative_to(source)}: {unit} has no entry in MAY_IMPORT")
            continue
        for found in read_imports(path, source):
            target_file = find_file(found.module, source)
            target = find_unit(target_file, source) if target_file else unit
            if target != unit and target not in MAY_IMPORT[unit]:
                wrong.append(f"{path.relative_to(source)}:{found.line} {unit} imports {target}")
    return list(dict.fromkeys(wrong))  # a line that imports five names is named once


def find_heavy_imports(entry: str, source: Path) -> list[str]:
    """Return the heavy libraries that importing one of our modules loads, directly or through others of ours."""
    first = find_file(f"{source.name}.{entry}", source)
    assert first is not None, f"{entry} is gone: rename it in LIGHT_ENTRIES"
    heavy, seen, waiting = [], set(), [first]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        # importing a.b.c runs the __init__ of a and of a.b too
        folders = [parent for parent in path.parents if parent == source or source in parent.parents]
        waiting += [folder / "__init__.py" for folder in folders if (folder / "__init__.py").is_file()]
        for found in read_imports(path, source):
            if found.is_lazy:
                continue
            if found.module.split(".")[0] in HEAVY:
                heavy.append(f"{path.relative_to(source)}:{found.line} imports {found.module}")
            target = find_file(found.module, source)
            waiting += [target] if target else []
    return heavy


def test_imports_point_down_only():
    assert find_wrong_arrows(SOURCE) == []


@pytest.mark.parametrize("entry", LIGHT_ENTRIES)
def test_no_heavy_library_is_loaded_for_help(entry):
    assert find_heavy_imports(entry, SOURCE) == []


def test_the_listed_layers_have_no_cycles():
    done: set[str] = set(LOWEST)  # these may use one another
    waiting = set(MAY_IMPORT) - done
    while waiting:
        ready = {unit for unit in waiting if MAY_IMPORT[unit] - {unit} <= done}
        assert ready, f"these import one another in a circle: {sorted(waiting)}"
        done |= ready
        waiting -= ready


def make_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / PACKAGE


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("voting.py", "from .media import read", "voting.py:1 voting imports media"),
        ("voting.py", "def f():\n    import sam2vss.media", "voting.py:2 voting imports media"),
        ("sam2/model.py", "from ..segmenters.hub import load", "sam2/model.py:1 sam2 imports segmenters"),
        ("segmenters/hub.py", "from .. import sam2", "segmenters/hub.py:1 segmenters imports sam2"),
        ("pipeline.py", "from .cli import main", "pipeline.py:1 pipeline imports cli"),
        ("media.py", "import sam2vss", "media.py:1 media imports __init__"),
        ("utils.py", "", "utils.py: utils has no entry in MAY_IMPORT"),
    ],
)
def test_an_arrow_that_points_up_is_found(tmp_path, name, text, message):
    bystanders = {"media.py": "", "cli.py": "", "sam2/__init__.py": "", "segmenters/hub.py": ""}
    source = make_tree(tmp_path, {**bystanders, name: text})
    assert find_wrong_arrows(source) == [message]


def test_arrows_that_point_down_pass(tmp_path):
    source = make_tree(
        tmp_path,
        {
            "types.py": "import numpy as np\nfrom .errors import ShapeError",
            "errors.py": "",
            "sam2/model.py": "from . import memory\nfrom ..types import Window",
            "sam2/memory.py": "import torch",
            "cli.py": "from .sam2.model import Model",
        },
    )
    assert find_wrong_arrows(source) == []


def test_a_heavy_import_is_found_through_other_modules_unless_it_is_lazy(tmp_path):
    source = make_tree(
        tmp_path,
        {
            "cli.py": "from .metrics.counts import count\ndef refine():\n    import transformers",
            "metrics/__init__.py": "from .slow import model",
            "metrics/counts.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import av",
            "metrics/slow.py": "try:\n    import torch.nn\nexcept ImportError:\n    pass",
        },
    )
    assert find_heavy_imports("cli", source) == ["metrics/slow.py:2 imports torch.nn"]
