"""Turns a model's name into local weights: alias, hub id, folder, or one checkpoint file.

Used by `sam2/` and `segmenters/`, which load what lies there. The local cache is asked before the network,
nothing but safetensors and small text files is ever fetched (no pickle, no code), and other weights than the ones
asked for are never taken instead: what cannot be had is an error that names the ways out.
"""

import difflib
import importlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import WeightsError
from .files import sha256_of
from .settings import SAFETENSORS_REVISIONS

PROBE_TIMEOUT_S = 4.0  # ours: an unreachable hub is an answer after seconds, not after 23 s of silent retries
TRAINING_STATE = "training-state.safetensors"  # there while `sam2vss train segmenter` is under way
WEIGHT_PATTERNS = ("model.safetensors", "model-*.safetensors")  # the names `save_pretrained` gives, shards included
TEXT_PATTERNS = ("*.json", "*.txt")  # configurations, shard index, tokenizer vocabularies
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WAYS_OUT = (
    "Ways out: pass a local folder with config.json and model.safetensors instead of the name; or fill the cache once "
    "where there is a network (HF_HOME names it) and set HF_HUB_OFFLINE=1"
)


@dataclass(frozen=True)
class ModelLocation:
    """Where a model's files lie on this machine.

    Attributes:
        id: Hub id, or the name, folder or file that was asked for.
        path: Local folder with config.json and safetensors, or one checkpoint file.
        revision: Commit hash of a hub model, None for a folder or file.
    """

    id: str
    path: Path
    revision: str | None = None

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the weights, sorted by name: safetensors, or the one checkpoint."""
        if self.path.is_file():
            return (self.path,)
        return tuple(sorted({file for pattern in WEIGHT_PATTERNS for file in self.path.glob(pattern)}))

    @property
    def num_bytes(self) -> int:
        """Size of the weights."""
        return sum(file.stat().st_size for file in self.weight_files)

    def sha256(self) -> dict[str, str]:
        """Return the SHA-256 of config.json (a folder's) and of every weight file by file name; reads them all."""
        config = () if self.path.is_file() else (self.path / "config.json",)
        return {file.name: sha256_of(file) for file in (*config, *self.weight_files)}


def resolve_model(
    name: str,
    aliases: Mapping[str, str],
    *,
    revision: str | None = None,
    needs_one_of: Sequence[str] = (),
    checkpoint_suffixes: tuple[str, ...] = (),
    without_download: str = "",
) -> ModelLocation:
    """Find a model on this machine, downloading it only when it is neither here nor in the cache.

    Args:
        name: An alias, a hub id "org/name" (also "org/name@revision"), a local folder, or a checkpoint file. An alias
            wins over a folder of the same name; write "./name" for the folder.
        aliases: Short names and what they stand for, a hub id or a folder.
        revision: Branch, tag or commit of a hub model; default the main branch.
        needs_one_of: A cached copy without any of these files counts as incomplete, and the hub is asked.
        checkpoint_suffixes: Endings of single files that the caller can load, such as ".pt"; none by default. A name
            that ends so is a file, never a hub id.
        without_download: What serves the same purpose and is here already, for the message; "" if nothing.

    Raises:
        WeightsError: If there is no such model, it cannot be reached, or it has no safetensors weights.
    """
    here = model_here(
        name, aliases, revision=revision, needs_one_of=needs_one_of, checkpoint_suffixes=checkpoint_suffixes
    )
    if here is not None:
        return here
    target, revision = _split_revision(name, aliases, revision)
    lack = "not in the local cache"
    if needs_one_of and cached_model(target, revision) is not None:
        lack = f"in the local cache without {needs_one_of[0]}"
    aside = "" if name in aliases else f" (and there is no folder {target} here)"
    ways_out = f"{WAYS_OUT}; or use what needs no download: {without_download}." if without_download else f"{WAYS_OUT}."
    return _download(target, revision, aliases, lack, aside, ways_out)


def model_here(
    name: str,
    aliases: Mapping[str, str],
    *,
    revision: str | None = None,
    needs_one_of: Sequence[str] = (),
    checkpoint_suffixes: tuple[str, ...] = (),
) -> ModelLocation | None:
    """Find a model on this machine, as `resolve_model` does; None for one of a hub that would have to be downloaded.

    Raises:
        WeightsError: If the name is none of a model, or what lies under it here is none.
    """
    if not name.strip():
        raise WeightsError(f"the name of a model is empty; known names: {', '.join(aliases) or 'none'}")
    target, revision = _split_revision(name, aliases, revision)
    path = Path(target).expanduser()
    if path.exists() and revision is not None:
        kind = "folder" if path.is_dir() else "file"
        raise WeightsError(f"{name} is a local {kind} and has no revision {revision!r}: leave the revision out")
    if path.is_dir():
        return local_model(path, name)
    if target.endswith(checkpoint_suffixes):
        if not path.is_file():
            raise WeightsError(
                f"there is no file {target}; expected a checkpoint, or a model's folder, alias or hub id"
            )
        return ModelLocation(name, path)
    if path.is_file():
        expected = " or ".join(("a folder with config.json and model.safetensors", *checkpoint_suffixes))
        raise WeightsError(f"{name} is a file, expected {expected}")
    if not _is_hub_id(target):
        raise WeightsError(_unknown_name(name, target, aliases))
    cached = cached_model(target, revision)
    if cached is not None and needs_one_of and not any((cached.path / file).is_file() for file in needs_one_of):
        return None
    return cached


def _split_revision(name: str, aliases: Mapping[str, str], revision: str | None) -> tuple[str, str | None]:
    """Return the folder, file or hub id that a name stands for, and the revision in it or given."""
    if name not in aliases and "@" in name and not Path(name).exists():
        target, _, revision = name.partition("@")
        return target, revision
    return aliases.get(name, name), revision


def local_model(folder: Path, name: str | None = None) -> ModelLocation:
    """Check that a folder holds a model as `save_pretrained` writes it.

    Raises:
        WeightsError: If config.json or the safetensors are missing, or only pickle files are there.
    """
    problem = _folder_problem(folder)
    if problem:
        raise WeightsError(f"{folder} holds no usable model: {problem}")
    return ModelLocation(name or str(folder), folder)


def cached_model(hub_id: str, revision: str | None = None) -> ModelLocation | None:
    """Return the complete copy of a hub model in the local cache, or None; never touches the network.

    Without a revision it is that of the main branch, else the one known to hold safetensors where main has none.
    """
    from huggingface_hub import try_to_load_from_cache

    for asked in (revision, SAFETENSORS_REVISIONS.get(hub_id)) if revision is None else (revision,):
        config = try_to_load_from_cache(hub_id, "config.json", revision=asked)
        if isinstance(config, str):  # None: not asked for yet; an object: known to be absent on the hub
            folder = Path(config).parent
            if not _folder_problem(folder):
                return ModelLocation(hub_id, folder, revision=folder.name)
    return None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids the network; read when the hub library is imported."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def hub_problem(timeout_s: float = PROBE_TIMEOUT_S) -> str:
    """Ask the hub for one small answer; return "" when it gives any, else what went wrong."""
    import huggingface_hub
    from huggingface_hub import constants

    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=timeout_s)
    except (_transport_error(), ConnectionError) as error:
        return f"{constants.ENDPOINT} does not answer ({_reason(error)})"
    return ""


def _folder_problem(folder: Path) -> str:
    """Say what keeps a folder from being a loadable model; "" when nothing does."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / TRAINING_STATE).is_file():
            return "its training is not finished: go on with `sam2vss train segmenter ... --resume`"
        checkpoints = sorted(file.name for file in folder.glob("*.pt"))
        aside = f"; a checkpoint of Meta's SAM 2 is passed as the file itself ({checkpoints[0]})" if checkpoints else ""
        return f"config.json is missing; expected the folder that `save_pretrained` wrote{aside}"
    except (OSError, ValueError) as error:
        return f"config.json cannot be read ({error})"
    if not isinstance(config, dict):
        return f"config.json holds a {type(config).__name__}, expected an object"
    if (folder / "model.safetensors").is_file():
        return ""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(
                {str(shard) for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{index.name} cannot be read ({type(error).__name__}: {error})"
        outside = [shard for shard in shards if Path(shard).name != shard]
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if outside:
            return f"{index.name} names files outside the folder ({outside[0]})"
        return f"{len(missing)} of {len(shards)} shards are missing (first: {missing[0]})" if missing else ""
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if pickles:
        return (
            f"the weights lie only in {pickles[0]}, a pickle file, which can run code when opened and is never loaded; "
            "expected model.safetensors (load it where you trust it and call `save_pretrained`)"
        )
    return "model.safetensors is missing; expected the folder that `save_pretrained` wrote"


def _is_hub_id(target: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(target)
    except HFValidationError:
        return False
    return target.count("/") == 1


def _unknown_name(name: str, target: str, aliases: Mapping[str, str]) -> str:
    if name in aliases:
        return f"{name} stands for the folder {target}, which is not there: this installation is incomplete"
    if target.startswith((".", "/", "~", "\\")) or "\\" in target or target.count("/") > 1:
        return f"there is no folder {target}; expected a folder with config.json and model.safetensors"
    return (
        f"{name!r} is neither a known name, nor a folder here, nor a hub id of the form org/name."
        f"{_did_you_mean(name, aliases)} Known names: {', '.join(aliases) or 'none'}."
    )


def _did_you_mean(name: str, aliases: Mapping[str, str]) -> str:
    """Suggest the aliases whose name, or whose hub id, is close to a misspelt one."""
    known = {**{alias: alias for alias in aliases}, **{target: target for target in aliases.values() if "/" in target}}
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _download(
    hub_id: str, revision: str | None, aliases: Mapping[str, str], lack: str, here: str, ways_out: str
) -> ModelLocation:
    """Fetch a hub model into the cache, after one quick question whether it can be had; `lack` says why it must be.

    `here` says that the name is no folder, `ways_out` what to do; both are for messages.
    """
    from huggingface_hub import HfApi, errors, snapshot_download
    from huggingface_hub.utils import filter_repo_objects

    if is_offline():
        raise WeightsError(f"{hub_id} is {lack} and HF_HUB_OFFLINE forbids to fetch it{here}. {ways_out}")
    subfolders = ["*/*"]  # `*` also matches `/`: without this, other models in subfolders would come along
    try:
        info = HfApi(library_name="sam2vss").model_info(hub_id, revision=revision, timeout=PROBE_TIMEOUT_S)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        if "config.json" not in files:
            raise WeightsError(f"{hub_id} has no config.json on the hub: it is no model that transformers can load")
        if not list(filter_repo_objects(files, allow_patterns=list(WEIGHT_PATTERNS), ignore_patterns=subfolders)):
            if revision is None and hub_id in SAFETENSORS_REVISIONS:
                return _download(hub_id, SAFETENSORS_REVISIONS[hub_id], aliases, lack, here, ways_out)
            pickles = [file for file in files if file.endswith(PICKLE_SUFFIXES)]
            raise WeightsError(
                f"{hub_id} has no model.safetensors on the hub"
                + (
                    f", only {pickles[0]}, a pickle file, which can run code when opened and is never loaded"
                    * bool(pickles)
                )
                + ". Ask for a revision with safetensors (org/name@revision), or convert it where you trust it and "
                "pass the folder."
            )
        folder = snapshot_download(
            hub_id,
            revision=revision,
            library_name="sam2vss",
            allow_patterns=[*WEIGHT_PATTERNS, *TEXT_PATTERNS],
            ignore_patterns=subfolders,
            etag_timeout=PROBE_TIMEOUT_S,
        )
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{hub_id} is gated: accept its conditions on its hub page and set HF_TOKEN to a token of that account. "
            f"{ways_out}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{hub_id} has no revision {revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"there is no model {hub_id} on the hub, or it is private and HF_TOKEN does not open it{here}."
            f"{_did_you_mean(hub_id, aliases)}"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, _transport_error(), ConnectionError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise WeightsError(
                f"the hub refuses {hub_id} (HTTP {status}): set HF_TOKEN to a token that opens it"
            ) from error
        raise WeightsError(
            f"{hub_id} is {lack} and the hub cannot be reached ({_reason(error)}){here}. {ways_out}"
        ) from error
    except OSError as error:  # a full disk, a cache that cannot be written
        raise WeightsError(f"{hub_id} cannot be stored in the local cache: {error}") from error
    return ModelLocation(hub_id, local_model(Path(folder), hub_id).path, revision=Path(folder).name)


def _transport_error() -> type[Exception]:
    """The base error of the HTTP library below the hub library: httpx up to huggingface_hub 1.x, httpx2 from 2.x on."""
    import huggingface_hub

    library = importlib.import_module(type(huggingface_hub.get_session()).__module__.partition(".")[0])
    error: type[Exception] = library.HTTPError
    return error


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and reports while a model loads: we say ourselves what is wrong with it."""
    import transformers

    transformers_logging = transformers.utils.logging
    level, had_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bar:
            transformers_logging.enable_progress_bar()
