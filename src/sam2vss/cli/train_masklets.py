"""`sam2vss train classifier` and `sam2vss train fusion`."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import FrameWeighting, HeadName, MaskletSettings, VoteScope
from .exit_codes import EXIT_DONE
from .options import Flag
from .training_features import FeatureOptions, Several, gather


def classifier(
    *,
    head: HeadName = "mlp",
    scope: VoteScope = "frame",
    weighting: FrameWeighting = "uniform",
    levels: Several = (),
    use_tokens: Flag = False,
    use_shape: Flag = False,
    purity: float = 0.6,
    balance: Literal["none", "sqrt", "inverse"] = "sqrt",
    hidden: int = 256,
    dropout: float = 0.1,
    rate: float = 1e-3,
    epochs: int = 40,
    patience: int = 8,
    seed: int = 0,
    masklets: Annotated[MaskletSettings, Parameter(name="*")] = MaskletSettings(),  # noqa: B008 (frozen)
    options: Annotated[FeatureOptions, Parameter(name="*")],
) -> int:
    """Train a classifier of masklets on the features of any encoder (I-SAM2, I-SegFormer, ...), for `classify`.

    Masklets are found and their features stored once in OUT/features; training itself takes minutes on a CPU.

    Parameters
    ----------
    head
        linear, mlp (the paper's), or context: a small transformer over all masklets of a frame or window.
    scope
        frame: a class per mask, as in Eq. 3. window: one per masklet, from the features of all its frames.
    weighting
        With --scope window: frames count alike, or by quality (mask area, predicted IoU, cut off by the border or not).
    levels
        Levels of the encoder to use; default: all.
    use_tokens
        Attention pooling of the cells kept with --tokens.
    use_shape
        Let the network see position, size and quality of the masks.
    purity
        Share of a mask's labelled pixels that its majority class needs to be a training example.
    balance
        Weight of a class by its number of masks: none, sqrt (n^-1/2) or inverse (1/n).
    hidden
        Width of the hidden layer.
    dropout
        Of the hidden layer.
    rate
        Learning rate.
    epochs
        At most so many passes.
    patience
        Passes without a better validation score after which training stops.
    seed
        Seed of weights, order and dropout.
    """
    from ..console import print_problem
    from ..training.classifier import ClassifierRecipe
    from ..training.masklet_networks import make_classifier

    recipe = ClassifierRecipe(
        head=head,
        scope=scope,
        weighting=weighting,
        parts=options.pool,
        levels=levels,
        uses_tokens=use_tokens,
        uses_shape=use_shape,
        hidden=_at_least(1, "--hidden", hidden),
        dropout=_fraction("--dropout", dropout),
        purity=_fraction("--purity", purity),
        balance=balance,
        epochs=_at_least(1, "--epochs", epochs),
        patience=_at_least(1, "--patience", patience),
        rate=_positive("--rate", rate),
        seed=_at_least(0, "--seed", seed),
    )
    if use_tokens and not options.tokens and not options.features:
        raise SettingsError("--use-tokens pools single cells, and none are kept: pass --tokens 16")
    data = gather(options, masklets, needs_encoder=True, needs_votes=False)
    with _passes(recipe.epochs) as say:
        trained = make_classifier(data, recipe, options.out, say)
    network = trained.network
    facts = network.training_record["data"]
    weight = "no base votes" if network.vote_weight is None else f"{network.vote_weight:g}"
    rows = [
        ["training", "value"],
        ["masks that teach", f"{facts['masks that teach']} of {facts['training masks']}"],
        ["passes", str(trained.epochs)],
        ["mIoU of validation masks", f"{100 * trained.miou:.2f}"],
        ["accuracy on pure validation masks", f"{100 * trained.accuracy:.2f}"],
        ["weight learned for base votes", weight],
    ]
    _print_end(rows, options.out)
    if network.unknown_names:
        print_problem(f"no training masks: {', '.join(network.unknown_names)}; these classes are never given")
    return EXIT_DONE


def fusion(
    *,
    use_classifier: str | None = None,
    use_features: Flag = False,
    levels: Several = (),
    keep: bool = True,
    hidden: int = 64,
    dropout: float = 0.1,
    spans: int = 2,
    blends: float = 0.25,
    rate: float = 2e-3,
    epochs: int = 60,
    patience: int = 15,
    seed: int = 0,
    masklets: Annotated[MaskletSettings, Parameter(name="*")] = MaskletSettings(),  # noqa: B008 (frozen)
    options: Annotated[FeatureOptions, Parameter(name="*")],
) -> int:
    """Train what decides on masklets in place of the majority vote, for `refine --fusion`.

    Needs base labels of the training clips (--labels or --segmenter). From votes and shapes alone it serves any label
    set; with a classifier or features only theirs.

    Parameters
    ----------
    use_classifier
        Hear what a classifier trained on the same features says: folder, hub id or "nano".
    use_features
        Look at pooled features of --encoder too; needs more training clips than --use-classifier.
    levels
        Levels of the encoder to use; default: all.
    keep
        Whether it may leave the base labels of a masklet as they are.
    hidden
        Width of the hidden layers.
    dropout
        Of the hidden layers.
    spans
        Random parts of every window that each pass takes as windows of their own.
    blends
        Bad masklets made of pairs of good ones, as share of all: so that it learns when to leave the base labels.
    rate
        Learning rate.
    epochs
        At most so many passes.
    patience
        Passes without a better validation score after which training stops.
    seed
        Seed of weights, order, spans and dropout.
    """
    from ..segmentor import find_classifier, load_classifier
    from ..training.fusion import FusionRecipe
    from ..training.masklet_networks import make_fusion

    recipe = FusionRecipe(
        uses_features=use_features,
        parts=options.pool,
        levels=levels,
        may_keep=keep,
        hidden=_at_least(1, "--hidden", hidden),
        dropout=_fraction("--dropout", dropout),
        spans=_at_least(0, "--spans", spans),
        blends=_fraction("--blends", blends),
        epochs=_at_least(1, "--epochs", epochs),
        patience=_at_least(1, "--patience", patience),
        rate=_positive("--rate", rate),
        seed=_at_least(0, "--seed", seed),
    )
    network = None if use_classifier is None else load_classifier(find_classifier(use_classifier))
    needs_encoder = use_features or network is not None
    data = gather(options, masklets, needs_encoder=needs_encoder, needs_votes=True)
    with _passes(recipe.epochs) as say:
        trained = make_fusion(data, recipe, options.out, say, network)
    rows = [
        ["training", "value"],
        ["passes", str(trained.epochs)],
        ["mIoU of validation masklets, fusion", f"{100 * trained.miou:.2f}"],
        ["the same, majority vote", f"{100 * trained.majority_miou:.2f}"],
        ["the same, if most pixels were right", f"{100 * trained.best_miou:.2f}"],
        ["masklets that leave the base labels", f"{100 * trained.kept:.1f} %"],
    ]
    _print_end(rows, options.out)
    return EXIT_DONE


@contextmanager
def _passes(total: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show a bar of training passes with the latest score, on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    from ..console import stderr

    columns = (
        TextColumn("training"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[score]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeLeftColumn(), console=stderr) as progress:
        task = progress.add_task("training", total=total, score="")

        def say(entry: dict[str, Any]) -> None:
            score = f"mask mIoU {100 * entry['validation_mask_miou']:.2f}"
            progress.update(task, completed=entry["step"], score=score)

        yield say
        done = progress.tasks[task].completed  # training may have stopped early, and then it is finished too
        progress.update(task, total=done)


def _print_end(rows: list[list[str]], out: Path) -> None:
    from ..console import print_rows, stderr
    from ..training.metrics_log import FILE_NAME, TENSORBOARD_FOLDER

    print_rows(rows)
    print(f"network {out}")
    print(f"metrics {out / FILE_NAME}")
    if (out / TENSORBOARD_FOLDER).is_dir():
        print(f"        {out / TENSORBOARD_FOLDER} (tensorboard --logdir)")
    else:
        stderr.print(
            'no TensorBoard events were written: it is not installed (pip install "sam2vss[train]")', markup=False
        )


def _fraction(option: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise SettingsError(f"{option} is {value}, expected 0 to 1")
    return value


def _at_least(least: int, option: str, value: int) -> int:
    if value < least:
        raise SettingsError(f"{option} is {value}, expected at least {least}")
    return value


def _positive(option: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise SettingsError(f"{option} is {value}, expected a positive number")
    return value
