"""A tiny random BERT with a tokenizer of its own, for tests that need an encoder but no knowledge."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, BertTokenizerFast

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONG = 6  # words of more letters are made of two wordpieces


def tiny_encoder(folder: Path, words: Iterable[str], hidden: int = 32, layers: int = 2, positions: int = 512) -> Path:
    """Write the folder of an encoder (config.json, model.safetensors, tokenizer.json); the same each time.

    A word is one wordpiece, a longer one two; other words are spelt with the letters of the given ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lowered = sorted({word.lower() for word in words})
    letters = sorted({letter for word in lowered for letter in word})
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    for word in lowered:
        pieces += [word] if len(word) <= LONG else [word[:LONG], f"##{word[LONG:]}"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIALS, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=10_000))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=4 * hidden,
        max_position_embeddings=positions,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
