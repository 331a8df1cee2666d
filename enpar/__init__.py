"""enpar: pre-trained entity and entity-pair encoders for joint entity and relation extraction."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enpar.extractor import Extractor

__all__ = ["Extractor", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of a module
    """What is imported only when it is asked for: `import enpar` is to take no time."""
    if name == "Extractor":
        from enpar.extractor import Extractor

        return Extractor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
