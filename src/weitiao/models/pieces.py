"""Token ids to text as they come: a character cut between two tokens waits for its rest."""

from collections.abc import Callable, Iterator, Sequence

Decode = Callable[[Sequence[int]], str]
"""Token ids to text."""


class Pieces:
    """The text of one answer, a token at a time.

    A token is decoded beside those before it, because alone some lose their leading blank.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown = ""
        self._said = 0

    def add(self, token: int) -> str:
        """Return the text that ``token`` completes; '' if it ends within a character."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith("\N{REPLACEMENT CHARACTER}") or text == self._shown:
            return ""
        piece = text[len(self._shown) :]
        self._ids = self._ids[self._said :]
        self._said = len(self._ids)
        self._shown = self._decode(self._ids)
        return piece

    def rest(self) -> str:
        """Return what never was completed."""
        return self._decode(self._ids)[len(self._shown) :]


def text_pieces(decode: Decode, tokens: Iterator[int]) -> Iterator[str]:
    """Yield text as tokens complete it."""
    pieces = Pieces(decode)
    for token in tokens:
        if piece := pieces.add(token):
            yield piece
    if rest := pieces.rest():
        yield rest
