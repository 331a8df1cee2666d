"""A fine-tuned model as an MLflow model: `mlflow.pyfunc.load_model("runs:/RUN/model").predict(table)`.

The model's folder itself is the MLflow model; beside its files stand those that `describe` writes. They name this
module as what loads it: nothing is pickled, and the artifact holds no code.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema
from pandas import DataFrame

from enpar.errors import UserError
from enpar.extractor import Extractor

_EXAMPLE = "Ada Lovell was born in Corwen."
_NEEDED = ("enpar", "torch", "transformers", "spacy", "numpy", "pandas")
_ENTITY = {
    "type": DataType.string,
    "char_start": DataType.long,
    "char_end": DataType.long,
    "text": DataType.string,
    "score": DataType.double,
}
_RELATION = {"type": DataType.string, "head": DataType.long, "tail": DataType.long, "score": DataType.double}


class TextModel:
    """Extracts from the texts of a table."""

    def __init__(self, folder: Path) -> None:
        self._extract = Extractor(folder)

    def predict(self, table: DataFrame, params: dict[str, Any] | None = None) -> DataFrame:
        """The entities and relations of each text, as `enpar extract` finds them.

        Args:
            table: has a column `text`.
            params: unused; MLflow's.

        Returns:
            A row for each text: `entities`, a list of {"type", "char_start", "char_end", "text", "score"}, and
            `relations`, a list of {"type", "head", "tail", "score"}, whose head and tail index the row's entities.

        Raises:
            UserError: a text is none.
        """
        texts = list(table["text"])
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"row {number}: text is {text!r}, no text")
        rows: list[dict[str, list[dict[str, Any]]]] = [{"entities": [], "relations": []} for _ in texts]
        for record in self._extract(texts):
            row = rows[int(record["orig_id"].partition("#")[0])]
            before = len(row["entities"])
            row["entities"] += [{name: entity[name] for name in _ENTITY} for entity in record["entities"]]
            for relation in record["relations"]:
                row["relations"].append(
                    relation | {"head": relation["head"] + before, "tail": relation["tail"] + before}
                )
        return DataFrame(rows, columns=["entities", "relations"], index=table.index)


def _load_pyfunc(path: str) -> TextModel:
    return TextModel(Path(path))  # MLflow calls it by this name


def describe(folder: Path) -> None:
    """Write what makes an MLflow model of a fine-tuned model's folder: MLmodel, requirements and an example."""
    outputs = [_list("entities", _ENTITY), _list("relations", _RELATION)]
    mlflow.pyfunc.save_model(
        folder,
        loader_module=__name__,
        signature=ModelSignature(Schema([ColSpec(DataType.string, "text")]), Schema(outputs)),
        input_example=DataFrame({"text": [_EXAMPLE]}),
        pip_requirements=[f"{name}=={version(name)}" for name in _NEEDED],
    )


def _list(name: str, fields: dict[str, DataType]) -> ColSpec:
    return ColSpec(Array(Object([Property(field, kind) for field, kind in fields.items()])), name)
