"""How our own small networks are saved and loaded: config.json, model.safetensors and a model card; never pickle."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import LabelError, SettingsError, ShapeError, WeightsError
from ..hub import ModelLocation, resolve_model

_HUB_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token", "map_location")


class SavedNetwork(nn.Module, PyTorchModelHubMixin):  # type: ignore[misc] # the hub library has no types
    """A network with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    What a subclass' `__init__` takes is what config.json holds. Every weight of the file must be used, and none may be
    missing.

    Attributes:
        format: What config.json calls such a network.
    """

    format = ""
    _hub_mixin_config: dict[str, Any]  # what config.json holds; the hub library collects it

    @property
    def config(self) -> dict[str, Any]:
        """What `save_pretrained` writes as config.json: the arguments of `__init__`."""
        found: dict[str, Any] = self._hub_mixin_config
        return found

    def note_training(self, training: Mapping[str, Any]) -> None:
        """Keep what is known only after training: "data", "recipe" and "scores", tables of JSON types, for the card."""
        plain = json.loads(json.dumps(training), parse_constant=lambda _: None)  # JSON knows no NaN
        self.training_record = self.config["training"] = plain

    def card_text(self) -> str:
        """Return the model card, Markdown with a YAML head."""
        raise NotImplementedError

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights; an earlier network's card goes, which the hub library would leave beside new weights."""
        super()._save_pretrained(save_directory)
        (save_directory / "README.md").unlink(missing_ok=True)

    def generate_model_card(self, *arguments: Any, **options: Any) -> ModelCard:
        """Return the card that `save_pretrained` and `push_to_hub` write; arguments are those of the hub library."""
        return ModelCard(self.card_text())

    @classmethod
    def find(cls, name: str, aliases: Mapping[str, str]) -> ModelLocation:
        """Find such a network by alias, hub id or folder, without loading it.

        Raises:
            WeightsError: If it cannot be had, or is something else.
        """
        bundled = f"what is bundled ({', '.join(aliases)})" if aliases else ""
        location = resolve_model(name, aliases, without_download=bundled)
        config = json.loads((location.path / "config.json").read_text(encoding="utf-8"))
        found = config.get("format")
        if found != cls.format:
            kind = f"of kind {found!r}" if found else f"of type {config.get('model_type', 'unknown')!r}"
            raise WeightsError(f"{name} holds a network {kind}, expected {cls.format!r} (made by `sam2vss train`)")
        return location

    @classmethod
    def load(cls, location: ModelLocation, device: str = "cpu") -> Self:
        """Load what `find` found, for inference.

        Raises:
            WeightsError: If the files are damaged or of another version.
        """
        try:
            config = json.loads((location.path / "config.json").read_text(encoding="utf-8"))
            network = cls(**config)
            network.load_state_dict(_finite(load_file(location.path / "model.safetensors")))
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"{location.path} cannot be loaded ({type(error).__name__}: {error})") from error
        except (LabelError, SettingsError, ShapeError, WeightsError) as error:
            raise WeightsError(f"{location.path} holds a config.json that makes no sense: {error}") from error
        return network.to(device).eval()

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        """Answer `from_pretrained` of the hub library: the same files, by the same rules.

        Args:
            model_id: Hub id or folder.
            options: Those of the hub library, of which `revision` and `map_location` count, and all that config.json
                holds.

        Raises:
            WeightsError: If the network cannot be had or loaded.
            SettingsError: If an option is unknown, or differs from config.json.
        """
        revision = options.get("revision")
        name = f"{model_id}@{revision}" if revision and not Path(model_id).exists() else str(model_id)
        network = cls.load(cls.find(name, {}))
        config = network._hub_mixin_config
        others = {key: value for key, value in options.items() if key not in _HUB_OPTIONS}
        strangers = [key for key, value in others.items() if key not in config or config[key] != value]
        if strangers:
            raise SettingsError(f"from_pretrained takes no {strangers[0]}: config.json says what the network is")
        return network.to(torch.device(options.get("map_location") or "cpu"))


def _finite(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights, after making sure that all are finite floating-point numbers."""
    wrong = [name for name, value in weights.items() if not (value.is_floating_point() and value.isfinite().all())]
    if wrong:
        raise ValueError(f"{len(wrong)} of its weights are not finite numbers, the first is {wrong[0]}")
    return weights


def check_dropout(dropout: float) -> None:
    """Raise `SettingsError` unless it is a share that may be dropped."""
    if not 0 <= dropout < 1:
        raise SettingsError(f"dropout is {dropout}, expected 0 or more and less than 1")


def card_head(tags: Sequence[str]) -> str:
    """Return the YAML head of a model card."""
    lines = "\n".join(f"- {tag}" for tag in ("sam2vss", "video-semantic-segmentation", *tags))
    return f"---\nlibrary_name: sam2vss\ntags:\n{lines}\n---\n"


def card_table(title: str, values: Mapping[str, Any]) -> str:
    """Return a Markdown table of names and values under a heading; nothing where there are none."""
    if not values:
        return ""
    rows = "\n".join(f"| {name} | {_in_words(value)} |" for name, value in values.items())
    return f"\n## {title}\n\n| what | value |\n|---|---|\n{rows}\n"


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
