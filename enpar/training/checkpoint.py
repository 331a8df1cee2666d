"""A model's folder in the Hugging Face form: config.json, model.safetensors, tokenizer files and a model card.

`AutoModel.from_pretrained(folder)` finds the sentence encoder in it; what enpar adds stands beside it in the same
files, under the key `enpar` of config.json and the prefix `enpar.` of the weights. Nothing in it can carry code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from enpar.errors import UserError
from enpar.pretrained import CONFIG, ENPAR_KEY, WEIGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CARD = "README.md"


def save_model(
    folder: Path,
    encoder: "PreTrainedModel",
    parts: Mapping[str, nn.Module],
    tokenizer: "PreTrainedTokenizerFast",
    settings: Mapping[str, Any],
    card: str,
) -> None:
    """Write a model into an existing folder.

    Args:
        encoder: the sentence encoder.
        parts: further modules by name.
        settings: what is needed to build the parts again; JSON.
        card: the model card, Markdown.
    """
    config = encoder.config.to_dict() | {ENPAR_KEY: dict(settings)}
    config["dtype"] = "float32"
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    weights = _prefixed(encoder, f"{encoder.base_model_prefix}.")
    for name, part in parts.items():
        weights |= _prefixed(part, f"{ENPAR_KEY}.{name}.")
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(card, encoding="utf-8")


def load_weights(folder: Path, encoder: "PreTrainedModel", parts: Mapping[str, nn.Module]) -> None:
    """Fill the encoder and the parts from a folder that `save_model` wrote.

    Raises:
        UserError: the folder lacks a weight, or holds one of another shape.
    """
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS}: not to be read as safetensors: {error}") from None
    modules = {f"{encoder.base_model_prefix}.": encoder} | {
        f"{ENPAR_KEY}.{name}.": part for name, part in parts.items()
    }
    for prefix, module in modules.items():
        mine = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        try:
            module.load_state_dict(mine)
        except RuntimeError as error:
            raise UserError(f"{folder / WEIGHTS}: {' '.join(str(error).split())}") from None


def _prefixed(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value.detach().to("cpu").contiguous().clone() for name, value in module.state_dict().items()}
