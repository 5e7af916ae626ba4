"""What several processes say about one thing, said once."""

from __future__ import annotations

__all__ = ["SaidOnce"]

#: Seconds within which processes say the same of the same event.
TOGETHER_S = 5.0


class SaidOnce:
    """Every process reads the same certificate, and warns that it ends: operators want to hear it once."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], tuple[int, float]] = {}

    def new(self, place: int, namespace: str, text: str, now: float) -> bool:
        """False when another process has just said the same; one that repeats itself is heard."""
        said = self._said
        if len(said) > 1000:
            self._said = said = {key: each for key, each in said.items() if now - each[1] < TOGETHER_S}
        by, at = said.get((namespace, text), (place, now))
        if by != place and now - at < TOGETHER_S:
            return False
        said[namespace, text] = (place, now)
        return True
