"""Sentences as wordpiece ids with aligned spans, in flat arrays that many sentences share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from enpar.errors import UserError
from enpar.pretrained import load_config, load_tokenizer
from enpar.sentence import Sentence, read_sentences, sentence_files
from enpar.storage import Location

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
SPECIALS = 2  # [CLS] before and [SEP] behind each sequence
LONGEST = 512  # positions; self-attention over more is of no use within a sentence
# Their positions are counted from behind the padding's index.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm")
# How the Penn Treebank, and corpora tokenised its way, write brackets and quotation marks (SciERC, CoNLL04, ACE05 of
# CoreNLP, NYT): an encoder has learnt the characters themselves, and raw text has those.
TREEBANK = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "``": '"',
    "''": '"',
}


@dataclass(frozen=True)
class Pieces:
    """The wordpieces of one sentence.

    Args:
        ids: wordpiece ids without [CLS] and [SEP]. Shape: (wordpieces,)
        starts: where each token's wordpieces begin, and the end of the last. Shape: (tokens + 1,)
    """

    ids: Ints
    starts: Ints

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The wordpieces of tokens `start` to `end`; empty if the tokenizer makes nothing of them."""
        return int(self.starts[start]), int(self.starts[end])


def limit_of(config: "PretrainedConfig") -> int:
    """How many wordpieces the encoder reads at once, without [CLS] and [SEP]."""
    unused = config.pad_token_id + 1 if config.model_type in _OFFSET_POSITIONS else 0
    return int(min(config.max_position_embeddings - unused, LONGEST)) - SPECIALS


def split(tokenizer: "PreTrainedTokenizerFast", sentences: Sequence[Sequence[str]]) -> Iterator[Pieces]:
    """Wordpieces of tokenised sentences, aligned with their tokens.

    A token of which the tokenizer makes nothing (white space, control characters) has no wordpieces. Brackets and
    quotation marks as the Penn Treebank writes them (`-LRB-`) are read as the characters that they stand for.
    """
    if not sentences:
        return
    encoded = tokenizer(
        [[TREEBANK.get(token, token) for token in tokens] for tokens in sentences],
        is_split_into_words=True,
        add_special_tokens=False,
        return_attention_mask=False,
        verbose=False,
    )
    for i, tokens in enumerate(sentences):
        words = [word for word in encoded.word_ids(i) if word is not None]
        counts = np.bincount(np.array(words, dtype=np.int64), minlength=len(tokens))
        yield Pieces(np.array(encoded["input_ids"][i], dtype=np.int64), _ends(counts))


@dataclass(frozen=True)
class EntityPieces:
    """The distinct wordpiece sequences of a corpus' entities, grouped by their number of wordpieces.

    Args:
        ids: all of them, one after the other. Shape: (total wordpieces,)
        first: where the sequences of k wordpieces begin in `ids`, for k = 0, 1, … Shape: (longest + 2,)
    """

    ids: Ints
    first: Ints

    def count(self, length: Ints) -> Ints:
        """How many distinct entities have this many wordpieces. Shape: that of `length`."""
        return (self.first[length + 1] - self.first[length]) // np.maximum(length, 1)


@dataclass(frozen=True)
class WordpieceCorpus:
    """Many sentences in flat arrays: S sentences, P wordpieces, E entities.

    Args:
        pieces: wordpiece ids of all sentences, one after the other. Shape: (P,)
        offsets: where each sentence's wordpieces begin, and the end. Shape: (S + 1,)
        entity_offsets: where each sentence's entities begin, and the end. Shape: (S + 1,)
        starts: first wordpiece of each entity, counted from its sentence's beginning. Shape: (E,)
        ends: end (exclusive) of each entity, counted likewise. Shape: (E,)
        types: index of each entity's type in `type_names`. Shape: (E,)
        numbers: index of each entity in its Sentence's entities. Shape: (E,)
        ranks: index of each entity's text among those of `inventory` with as many wordpieces. Shape: (E,)
        documents: a hash of each sentence's document id. Shape: (S,)
        sent_ids: number of each sentence in its document. Shape: (S,)
        names: document id of each sentence. Length: S
        inventory: the distinct entities.
        type_names: the entity types.
        left_out: sentences that were left out, by reason.
    """

    pieces: Ints
    offsets: Ints
    entity_offsets: Ints
    starts: Ints
    ends: Ints
    types: Ints
    numbers: Ints
    ranks: Ints
    documents: Keys
    sent_ids: Ints
    names: tuple[str, ...]
    inventory: EntityPieces
    type_names: tuple[str, ...]
    left_out: dict[str, int]

    @property
    def lengths(self) -> Ints:
        """Wordpieces of each sentence. Shape: (S,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        """How many sentences there are."""
        return len(self.sent_ids)


def read_corpus(
    data: Path | Location, encoder: str, max_wordpieces: int
) -> tuple[WordpieceCorpus, "PreTrainedTokenizerFast"]:
    """The sentences of a folder as an encoder reads them, and its tokenizer; the encoder's own limit holds as well.

    Raises:
        UserError: the data or the tokenizer is missing, or there is no sentence to train on.
    """
    sentence_files(data)
    tokenizer = load_tokenizer(encoder)
    limit = min(max_wordpieces, limit_of(load_config(encoder)))
    corpus = build_corpus(read_sentences(data), tokenizer, limit)
    if not len(corpus):
        raise UserError(f"data: {data} holds no sentence with an entity that is not too long: {corpus.left_out}")
    return corpus, tokenizer


def build_corpus(
    sentences: Iterable[Sentence], tokenizer: "PreTrainedTokenizerFast", max_wordpieces: int, batch: int = 1024
) -> WordpieceCorpus:
    """Cut sentences into wordpieces.

    Entities of no wordpieces are passed over. Left out, and counted in `left_out`, are sentences of more than
    `max_wordpieces` wordpieces and those without an entity.
    """
    limit = max_wordpieces
    pieces: list[Ints] = []
    entities: list[tuple[int, int, int, str]] = []
    entity_counts: list[int] = []
    origins: list[tuple[str, int]] = []
    left_out = {"too long": 0, "no entity": 0}
    stream = iter(sentences)
    while group := list(islice(stream, batch)):
        for sentence, cut in zip(group, split(tokenizer, [s.tokens for s in group]), strict=True):
            spans = sorted(
                (*cut.span(entity.start, entity.end), number, entity.type)
                for number, entity in enumerate(sentence.entities)
            )
            spans = [span for span in spans if span[0] < span[1]]
            if len(cut.ids) > limit or not spans:
                left_out["too long" if len(cut.ids) > limit else "no entity"] += 1
                continue
            pieces.append(cut.ids)
            entities += spans
            entity_counts.append(len(spans))
            origins.append((sentence.doc_id, sentence.sent_id))
    return _assemble(pieces, entities, entity_counts, origins, left_out)


def _assemble(
    pieces: list[Ints],
    entities: list[tuple[int, int, int, str]],
    entity_counts: list[int],
    origins: list[tuple[str, int]],
    left_out: dict[str, int],
) -> WordpieceCorpus:
    type_names = tuple(sorted({type_ for *_, type_ in entities}))
    flat = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    offsets = _ends(np.array([len(ids) for ids in pieces], dtype=np.int64))
    spans = np.array([span[:3] for span in entities], dtype=np.int64).reshape(-1, 3)
    sentence = np.repeat(np.arange(len(pieces)), entity_counts)
    inventory, ranks = _inventory(flat, offsets[sentence] + spans[:, 0], spans[:, 1] - spans[:, 0])
    return WordpieceCorpus(
        pieces=flat,
        offsets=offsets,
        entity_offsets=_ends(np.array(entity_counts, dtype=np.int64)),
        starts=spans[:, 0],
        ends=spans[:, 1],
        types=np.array([type_names.index(type_) for *_, type_ in entities], dtype=np.int64),
        numbers=spans[:, 2],
        ranks=ranks,
        documents=np.array([document_key(doc_id) for doc_id, _ in origins], dtype=np.uint64),
        sent_ids=np.array([sent_id for _, sent_id in origins], dtype=np.int64),
        names=tuple(doc_id for doc_id, _ in origins),
        inventory=inventory,
        type_names=type_names,
        left_out=left_out,
    )


def document_key(doc_id: str) -> int:
    """A 64-bit hash of a document id, the same in every process."""
    return int.from_bytes(blake2b(doc_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _inventory(pieces: Ints, starts: Ints, lengths: Ints) -> tuple[EntityPieces, Ints]:
    """The distinct entities by length, and the rank of each given one among those of its length."""
    longest = int(lengths.max(initial=0))
    ranks = np.zeros(len(starts), dtype=np.int64)
    groups: list[Ints] = []
    for length in range(longest + 1):
        chosen = np.flatnonzero(lengths == length)
        rows = pieces[starts[chosen, None] + np.arange(length)]
        if length and len(chosen):
            rows, inverse = np.unique(rows, axis=0, return_inverse=True)
            ranks[chosen] = inverse.reshape(-1)
        groups.append(rows.reshape(-1))
    first = _ends(np.array([len(group) for group in groups], dtype=np.int64))
    return EntityPieces(np.concatenate(groups) if groups else np.zeros(0, dtype=np.int64), first), ranks


def _ends(counts: Ints) -> Ints:
    """0 and the running sums: where each of consecutive groups begins, and the end of the last."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
