"""Take codes out of a text, however they are written in it: their letters and digits count, in their order, and nothing else. Pure.

All codes are looked for at once, in one pass (Aho and Corasick's automaton), so that it takes as long as the text is, whatever
the text and the codes. What was found is taken off a stack: no code comes to stand in what is left of a text when a piece is taken
out of its middle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from order_monitor.core.folding import letters_of

BLOT: Final = "****"


class _Automaton:
    """Knows after each letter which codes may have begun, and how long the longest is that has just ended."""

    def __init__(self, codes: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._back = [0]
        self.ended = [0]
        for code in codes:
            state = 0
            for letter in code:
                if letter not in self._next[state]:
                    self._next[state][letter] = len(self._next)
                    self._next.append({})
                    self._back.append(0)
                    self.ended.append(0)
                state = self._next[state][letter]
            self.ended[state] = len(code)
        self._moves: list[dict[str, int]] = [{} for _ in self._next]
        self._link()

    def _link(self) -> None:
        """Note for each state what has begun by then if its own beginning was none; the shorter ones first."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            self.ended[state] = self.ended[state] or self.ended[self._back[state]]
            for letter, following in self._next[state].items():
                self._back[following] = self.move(self._back[state], letter)
                waiting.append(following)

    def move(self, state: int, letter: str) -> int:
        """Return the state after one more letter; each way is looked for once."""
        passed = []
        while letter not in self._moves[state]:
            if letter in self._next[state]:
                self._moves[state][letter] = self._next[state][letter]
            elif state == 0:
                self._moves[state][letter] = 0
            else:
                passed.append(state)
                state = self._back[state]
        found = self._moves[state][letter]
        for other in passed:
            self._moves[other][letter] = found
        return found


def blotted(text: str, codes: Iterable[str]) -> str:
    """Return ``text`` without the ``codes`` (folded letters and digits), with `BLOT` where they stood."""
    automaton = _Automaton(codes)
    states, places, hidden = [0], list[int](), set[int]()
    for at, char in enumerate(text):
        for letter in letters_of(char):
            states.append(automaton.move(states[-1], letter))
            places.append(at)
            if length := automaton.ended[states[-1]]:
                first = places[-length]
                hidden.update(places[-length:])
                # A character that stands for several letters goes as a whole.
                while length < len(places) and places[-length - 1] == first:
                    length += 1
                del places[-length:], states[-length:]
                break
    return _without(text, hidden)


def blotted_word(text: str, code: str) -> str:
    """Return ``text`` without a short ``code``, where it stands by itself and is no part of a longer word.

    A blot parts words, so that to blot a text again changes nothing: ``1.****.1`` is not the code ``11``.
    """
    return BLOT.join(_without_word(part, code) for part in text.split(BLOT))


def _without_word(text: str, code: str) -> str:
    places = [at for at, char in enumerate(text) for _ in letters_of(char)]
    stream = "".join(map(letters_of, text))
    hidden: set[int] = set()
    at = stream.find(code)
    while at >= 0:
        first, last = places[at], places[at + len(code) - 1]
        if not letters_of(text[first - 1 : first] or " ") and not letters_of(text[last + 1 : last + 2] or " "):
            hidden.update(places[at : at + len(code)])
        at = stream.find(code, at + 1)
    return _without(text, hidden)


def _without(text: str, hidden: set[int]) -> str:
    """Put one blot for what is hidden and for the signs between; a sign behind the last of it stays."""
    if not hidden:
        return text
    kept: list[str] = []
    signs: list[str] = []
    behind = False
    for at, char in enumerate(text):
        if at in hidden:
            kept += [] if behind else [BLOT]
            signs, behind = [], True
        elif behind and not letters_of(char):
            signs.append(char)
        else:
            kept += [*signs, char]
            signs, behind = [], False
    return "".join([*kept, *signs])
