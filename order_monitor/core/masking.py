"""Remove codes from a text, however they are written in it: only the sequence of letters and digits
counts. Pure.

All codes are searched for in one pass (Aho-Corasick automaton), so the time is linear in the length
of the text, whatever the text and the codes. A match is popped off a stack, so that removing a
piece from the middle cannot join the rest into another code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from order_monitor.core.folding import letters_of

BLOT: Final = "****"


class _Automaton:
    """Knows after each letter which codes may have begun, and the length of the longest one that
    has just ended.
    """

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
        """Set each state's fallback: the longest proper suffix that is the beginning of a code.

        Shorter states first.
        """
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            self.ended[state] = self.ended[state] or self.ended[self._back[state]]
            for letter, following in self._next[state].items():
                self._back[following] = self.move(self._back[state], letter)
                waiting.append(following)

    def move(self, state: int, letter: str) -> int:
        """Return the state after one more letter; each transition is computed once."""
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


def masked(text: str, codes: Iterable[str]) -> str:
    """Return ``text`` with each of the ``codes`` (folded letters and digits) replaced by `BLOT`."""
    automaton = _Automaton(codes)
    states, places, hidden = [0], list[int](), set[int]()
    for at, char in enumerate(text):
        for letter in letters_of(char):
            states.append(automaton.move(states[-1], letter))
            places.append(at)
            if length := automaton.ended[states[-1]]:
                first = places[-length]
                hidden.update(places[-length:])
                # A character that stands for several letters is removed as a whole.
                while length < len(places) and places[-length - 1] == first:
                    length += 1
                del places[-length:], states[-length:]
                break
    return _without(text, hidden)


def masked_word(text: str, code: str) -> str:
    """Return ``text`` without a short ``code``, where it is a word of its own and not part of a
    longer one.

    A blot separates words, so that masking a text twice changes nothing: ``1.****.1`` is not the
    code ``11``.
    """
    return BLOT.join(_without_word(part, code) for part in text.split(BLOT))


def _without_word(text: str, code: str) -> str:
    places = [at for at, char in enumerate(text) for _ in letters_of(char)]
    stream = "".join(map(letters_of, text))
    hidden: set[int] = set()
    at = stream.find(code)
    while at >= 0:
        first, last = places[at], places[at + len(code) - 1]
        if not letters_of(text[first - 1 : first] or " ") and not letters_of(
            text[last + 1 : last + 2] or " "
        ):
            hidden.update(places[at : at + len(code)])
        at = stream.find(code, at + 1)
    return _without(text, hidden)


def _without(text: str, hidden: set[int]) -> str:
    """Replace each hidden run, including the signs within it, with one blot.

    Signs after its last hidden character stay.
    """
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
