"""Texts to the token ids that CLIP and SigLIP were trained on."""

import json
import string
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from ..errors import LabelError, WeightsError
from ..hub import ModelLocation, quiet_transformers
from ..segmenters.hub_models import failing_as

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TextReader:
    """Turns texts into token ids.

    Texts are lower-cased: CLIP's tokenizer does so itself, SigLIP and SigLIP 2 were trained on lower-case text, and the
    published tokenizer files of SigLIP 2 do not say so. SigLIP (the first) was trained without punctuation as well.
    Every text ends with the end token. SigLIP's are padded to the full length, as in training, since its text tower
    takes the last position and sees the padding; CLIP's takes the end token and never looks beyond it.

    Args:
        tokenizer: A fast tokenizer of transformers.
        max_length: Tokens that the model reads at most.
        vocab_size: Token ids that it knows.
        pads: Whether to pad to `max_length`; else to the longest text.
        drops_punctuation: Whether punctuation is removed.

    Source: transformers' SiglipTokenizer (`canonicalize_text`), Siglip2Tokenizer and the notes on padding in its
    documentation of SigLIP.
    """

    def __init__(self, tokenizer: Any, max_length: int, vocab_size: int, pads: bool, drops_punctuation: bool) -> None:
        self._tokenizer = tokenizer
        self._max_length, self._vocab_size = max_length, vocab_size
        self._pads, self._drops_punctuation = pads, drops_punctuation

    @classmethod
    def from_location(cls, location: ModelLocation, config: Any) -> "TextReader":
        """Load the tokenizer of a model folder.

        Raises:
            WeightsError: If there is none that can be read here.
        """
        folder = location.path
        if (folder / "tokenizer.json").is_file():
            kind: Any = transformers.PreTrainedTokenizerFast  # the file as it is; Auto classes rebuild it by class name
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file() and config.model_type == "clip":
            kind = transformers.CLIPTokenizer
        else:
            raise WeightsError(
                f"{location.id} has no tokenizer.json, which its texts need; SentencePiece files (*.model) are neither "
                "fetched nor read. Ask for a revision that has one (org/name@revision), or save it beside the model: "
                "AutoTokenizer.from_pretrained(...).save_pretrained(folder), where sentencepiece is installed"
            )
        try:
            with failing_as(location), quiet_transformers():
                tokenizer = kind.from_pretrained(folder, local_files_only=True)
        except WeightsError:
            raise
        except Exception as error:  # what the library tokenizers raises for damaged files has no class of its own
            raise WeightsError(f"the tokenizer of {location.id} cannot be read: {error}; fetch it again") from error
        text = config.text_config
        is_siglip = config.model_type != "clip"
        if tokenizer.eos_token_id is None or (is_siglip and tokenizer.pad_token_id is None):
            raise WeightsError(f"the tokenizer of {location.id} names no end token or no padding token: fetch it again")
        drops_punctuation = _tokenizer_class(location) == "SiglipTokenizer"
        return cls(tokenizer, text.max_position_embeddings, text.vocab_size, is_siglip, drops_punctuation)

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return token ids, int64 (M, K).

        Raises:
            LabelError: If a text is longer than the model reads.
            WeightsError: If the tokenizer gives ids that the model does not know.
        """
        with quiet_transformers():  # it warns of long texts, which are refused below
            rows = self._tokenizer([self._as_trained(text) for text in texts], padding=False, truncation=False)
        end = self._tokenizer.eos_token_id
        padding = end if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id
        ids = [row if row[-1:] == [end] else [*row, end] for row in rows["input_ids"]]
        for text, row in zip(texts, ids, strict=True):
            if len(row) > self._max_length:
                raise LabelError(
                    f"{text!r} has {len(row)} tokens, the text model reads {self._max_length} at most: shorten the "
                    "phrase or its template"
                )
        width = self._max_length if self._pads else max((len(row) for row in ids), default=0)
        tokens = torch.tensor([row + [padding] * (width - len(row)) for row in ids], dtype=torch.int64)
        if tokens.numel() and int(tokens.max()) >= self._vocab_size:
            raise WeightsError(
                f"the tokenizer gives the id {int(tokens.max())}, the model knows {self._vocab_size} tokens: they do "
                "not belong together"
            )
        return tokens

    def _as_trained(self, text: str) -> str:
        text = text.translate(_NO_PUNCTUATION) if self._drops_punctuation else text
        return " ".join(text.lower().split())


def _tokenizer_class(location: ModelLocation) -> str:
    """Return the class that tokenizer_config.json names, "" if it names none."""
    try:
        content = json.loads((location.path / "tokenizer_config.json").read_text(encoding="utf-8"))
        return str(content.get("tokenizer_class", "")).removesuffix("Fast")
    except (OSError, ValueError, AttributeError):
        return ""
