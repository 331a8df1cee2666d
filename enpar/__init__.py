"""enpar: pre-trained entity and entity-pair encoders for joint entity and relation extraction."""

__version__ = "0.1.0"
