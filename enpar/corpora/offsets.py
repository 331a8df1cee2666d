"""From character offsets to tokens."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[int, int]
"""Start and end (exclusive)."""


def cut(tokens: Iterable[Span], mentions: Iterable[Span]) -> list[Span]:
    """Split the tokens in which a mention begins or ends, so that every mention is made of whole tokens.

    Args:
        tokens: spans in characters, in order, without overlap.
        mentions: spans in characters.
    """
    bounds = sorted({bound for mention in mentions for bound in mention})
    pieces: list[Span] = []
    for start, end in tokens:
        inside = bounds[bisect_right(bounds, start) : bisect_left(bounds, end)]
        pieces += zip([start, *inside], [*inside, end], strict=True)
    return pieces


def locate(tokens: Sequence[Span], mention: Span) -> Span:
    """The tokens that a mention is made of; `tokens` are cut at its bounds."""
    return bisect_left(tokens, (mention[0],)), bisect_left(tokens, (mention[1],))
