"""Which way each character of a text runs: the Unicode Bidirectional Algorithm (UAX #9), by its rule names.

`levels(text)` gives the embedding level of every character (even: left to right, odd: right to left);
`visual_order(levels)` gives the order in which the pieces of one line stand, from left to right.
"""

import unicodedata
from collections.abc import Sequence

from adexport.rendering.graphemes import PLAIN

_BRACKETS = (
    "()[]{}༺༻༼༽᚛᚜⁅⁆⁽⁾₍₎⌈⌉⌊⌋\u2329\u232a❨❩❪❫❬❭❮❯❰❱❲❳❴❵⟅⟆⟦⟧⟨⟩⟪⟫⟬⟭⟮⟯⦃⦄⦅⦆⦇⦈⦉⦊⦋⦌⦍⦐⦏⦎⦑⦒⦓⦔⦕⦖⦗⦘⧘⧙⧚⧛⧼⧽"
    "⸢⸣⸤⸥⸦⸧⸨⸩\u3008\u3009《》「」『』【】〔〕〖〗〘〙〚〛﹙﹚﹛﹜﹝﹞（）［］｛｝｟｠｢｣"
)
_CANONICAL = {"\u2329": "\u3008", "\u232a": "\u3009"}
_CLOSER = {_CANONICAL.get(a, a): _CANONICAL.get(b, b) for a, b in zip(_BRACKETS[::2], _BRACKETS[1::2], strict=True)}
_CLOSERS = frozenset(_CLOSER.values())
_DEEPEST = 125  # max_depth, BD2
_REMOVED = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "BN"))  # X9
_ISOLATES = frozenset(("LRI", "RLI", "FSI"))
_NEUTRAL = frozenset(("B", "S", "WS", "ON", "LRI", "RLI", "FSI", "PDI"))
_SIMPLE = frozenset(("L", "EN", "ES", "ET", "CS", "NSM", "B", "S", "WS", "ON", "BN"))


def levels(text: str, base: int | None = None) -> tuple[int, list[int]]:
    """The paragraph's level (`base`, or by its first strong character) and the level of each character."""
    if not base and PLAIN.fullmatch(text):
        return 0, [0] * len(text)
    types = [unicodedata.bidirectional(char) or "L" for char in text]
    if base is None:
        base = _first_strong(types)
    if base == 0 and _SIMPLE.issuperset(types):  # nothing runs right to left
        return 0, [0] * len(text)
    matching = _match_isolates(types)
    original = list(types)
    explicit = _explicit(types, base, matching)
    resolved = list(explicit)
    for sequence in _sequences(original, explicit, matching):
        sos, eos = _ends(original, explicit, sequence, matching, base)
        kinds = [types[index] for index in sequence]
        _resolve(
            [text[index] for index in sequence],
            [original[index] for index in sequence],
            kinds,
            (sos, eos),
            explicit[sequence[0]],
        )
        for index, kind in zip(sequence, kinds, strict=True):
            resolved[index] += _implicit(explicit[index], kind)
    _settle_removed(original, resolved, base)
    _reset_separators(original, resolved, base)
    return base, resolved


def paragraph_level(text: str) -> int:
    """The level of a paragraph: 1 when its first strong character runs right to left."""
    return 0 if PLAIN.fullmatch(text) else _first_strong([unicodedata.bidirectional(char) or "L" for char in text])


def visual_order(line_levels: Sequence[int]) -> list[int]:
    """Indices of a line's pieces from left to right (L2)."""
    order = list(range(len(line_levels)))
    for level in range(max(line_levels, default=0), 0, -1):
        start = 0
        while start < len(order):
            end = start
            while end < len(order) and line_levels[order[end]] >= level:
                end += 1
            order[start:end] = reversed(order[start:end])
            start = max(end, start + 1)
    return order


def _first_strong(types: Sequence[str]) -> int:
    """P2 and P3: the level by the first strong character outside isolates; 0 when there is none."""
    depth = 0
    for kind in types:
        if kind in _ISOLATES:
            depth += 1
        elif kind == "PDI":
            depth = max(depth - 1, 0)
        elif depth == 0 and kind in ("L", "R", "AL"):
            return int(kind != "L")
    return 0


def _match_isolates(types: Sequence[str]) -> dict[int, int]:
    """BD9: the index of each isolate initiator to that of its PDI."""
    pairs: dict[int, int] = {}
    open_at: list[int] = []
    for index, kind in enumerate(types):
        if kind in _ISOLATES:
            open_at.append(index)
        elif kind == "PDI" and open_at:
            pairs[open_at.pop()] = index
    return pairs


class _Stack:
    """The directional status stack of X1 with its three counters."""

    def __init__(self, base: int) -> None:
        self.entries: list[tuple[int, str, bool]] = [(base, "", False)]
        self.overflow_isolates = self.overflow_embeddings = self.valid_isolates = 0

    def enter(self, odd: bool, override: str, isolate: bool) -> None:
        """X2 to X5c."""
        level = self.entries[-1][0] + 1
        if level % 2 != odd:
            level += 1
        if level <= _DEEPEST and not self.overflow_isolates and not self.overflow_embeddings:
            self.valid_isolates += isolate
            self.entries.append((level, override, isolate))
        elif isolate:
            self.overflow_isolates += 1
        elif not self.overflow_isolates:
            self.overflow_embeddings += 1

    def leave_isolate(self) -> None:
        """X6a."""
        if self.overflow_isolates:
            self.overflow_isolates -= 1
        elif self.valid_isolates:
            self.overflow_embeddings = 0
            while not self.entries[-1][2]:
                self.entries.pop()
            self.entries.pop()
            self.valid_isolates -= 1

    def leave_embedding(self) -> None:
        """X7."""
        if self.overflow_isolates:
            return
        if self.overflow_embeddings:
            self.overflow_embeddings -= 1
        elif not self.entries[-1][2] and len(self.entries) > 1:
            self.entries.pop()


def _explicit(types: list[str], base: int, matching: dict[int, int]) -> list[int]:
    """X1 to X8: levels by explicit marks; overrides are written into `types`."""
    stack = _Stack(base)
    result: list[int] = []
    for index, kind in enumerate(list(types)):
        if kind == "PDI":
            stack.leave_isolate()
        level, override, _ = stack.entries[-1]
        result.append(base if kind == "B" else level)
        if override and kind not in _REMOVED and kind != "B":
            types[index] = override
        if kind in ("RLE", "LRE", "RLO", "LRO"):
            stack.enter(kind[0] == "R", {"RLO": "R", "LRO": "L"}.get(kind, ""), isolate=False)
        elif kind in _ISOLATES:
            inner = _first_strong(types[index + 1 : matching.get(index, len(types))])
            stack.enter(kind == "RLI" or (kind == "FSI" and inner == 1), "", isolate=True)
        elif kind == "PDF":
            stack.leave_embedding()
        elif kind == "B":
            stack = _Stack(base)
    return result


def _sequences(original: Sequence[str], resolved: Sequence[int], matching: dict[int, int]) -> list[list[int]]:
    """X10, BD13: isolating run sequences as lists of indices, without the characters that X9 removes."""
    runs: list[list[int]] = []
    for index, kind in enumerate(original):
        if kind in _REMOVED:
            continue
        if runs and resolved[runs[-1][-1]] == resolved[index]:
            runs[-1].append(index)
        else:
            runs.append([index])
    first_of = {run[0]: run for run in runs}
    closers = set(matching.values())
    sequences: list[list[int]] = []
    for run in runs:
        if original[run[0]] == "PDI" and run[0] in closers:
            continue
        sequence = list(run)
        while original[sequence[-1]] in _ISOLATES and sequence[-1] in matching:
            sequence += first_of[matching[sequence[-1]]]
        sequences.append(sequence)
    return sequences


def _ends(
    original: Sequence[str], explicit: Sequence[int], sequence: list[int], matching: dict[int, int], base: int
) -> tuple[str, str]:
    """X10: the directions that hold before and after an isolating run sequence."""
    level = explicit[sequence[0]]
    before = next((explicit[i] for i in range(sequence[0] - 1, -1, -1) if original[i] not in _REMOVED), base)
    after = base
    if original[sequence[-1]] not in _ISOLATES or sequence[-1] in matching:
        rest = range(sequence[-1] + 1, len(original))
        after = next((explicit[i] for i in rest if original[i] not in _REMOVED), base)
    return "R" if max(level, before) % 2 else "L", "R" if max(level, after) % 2 else "L"


def _resolve(
    chars: Sequence[str], original: Sequence[str], kinds: list[str], ends: tuple[str, str], level: int
) -> None:
    """W1 to N2 for one isolating run sequence."""
    embedding = "R" if level % 2 else "L"
    _weak(kinds, ends[0])
    _brackets(chars, original, kinds, ends[0], embedding)
    _neutral(kinds, *ends, embedding)


def _implicit(level: int, kind: str) -> int:
    """I1 and I2: what a character's own direction adds to its level."""
    if level % 2 == 0:
        return {"R": 1, "AN": 2, "EN": 2}.get(kind, 0)
    return int(kind != "R")


def _weak(kinds: list[str], sos: str) -> None:
    """W1 to W7."""
    _weak_marks_and_numbers(kinds, sos)
    _weak_separators(kinds)
    strong = sos
    for at, kind in enumerate(kinds):  # W7
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[at] = "L"


def _weak_marks_and_numbers(kinds: list[str], sos: str) -> None:
    """W1 (marks take the type before them), W2 (numbers after Arabic letters), W3."""
    previous = sos
    for at, kind in enumerate(kinds):
        if kind == "NSM":
            kinds[at] = kind = "ON" if previous in _ISOLATES or previous == "PDI" else previous
        previous = kind
    strong = sos
    for at, kind in enumerate(kinds):
        if kind in ("L", "R", "AL"):
            strong = kind
        elif kind == "EN" and strong == "AL":
            kinds[at] = "AN"
    kinds[:] = ["R" if kind == "AL" else kind for kind in kinds]


def _weak_separators(kinds: list[str]) -> None:
    """W4 (single separators in numbers), W5 (terminators beside numbers), W6."""
    for at in range(1, len(kinds) - 1):
        left, kind, right = kinds[at - 1 : at + 2]
        if left == right and (kind, left) in (("ES", "EN"), ("CS", "EN"), ("CS", "AN")):
            kinds[at] = left
    at = 0
    while at < len(kinds):
        end = at
        while end < len(kinds) and kinds[end] == "ET":
            end += 1
        beside = kinds[at - 1 : at] + kinds[end : end + 1]
        if end > at and "EN" in beside:
            kinds[at:end] = ["EN"] * (end - at)
        at = end + 1
    kinds[:] = ["ON" if kind in ("ES", "ET", "CS") else kind for kind in kinds]


def _pairs(chars: Sequence[str], kinds: Sequence[str]) -> list[tuple[int, int]]:
    """BD16: bracket pairs by position of the opening one."""
    stack: list[tuple[str, int]] = []
    pairs: list[tuple[int, int]] = []
    for at, raw in enumerate(chars):
        char = _CANONICAL.get(raw, raw)
        if kinds[at] != "ON":
            continue
        if char in _CLOSER:
            if len(stack) == 63:
                return []
            stack.append((_CLOSER[char], at))
        elif char in _CLOSERS:
            found = next((i for i in range(len(stack) - 1, -1, -1) if stack[i][0] == char), None)
            if found is not None:
                pairs.append((stack[found][1], at))
                del stack[found:]
    return sorted(pairs)


def _brackets(chars: Sequence[str], original: Sequence[str], kinds: list[str], sos: str, embedding: str) -> None:
    """N0: both brackets of a pair take one direction, and marks on them follow."""

    def strong(kind: str) -> str:
        return "R" if kind in ("EN", "AN") else kind

    for start, end in _pairs(chars, kinds):
        inside = {strong(kind) for kind in kinds[start + 1 : end]} & {"L", "R"}
        if not inside:
            continue
        direction = embedding
        if embedding not in inside:
            context = next((strong(k) for k in reversed(kinds[:start]) if strong(k) in ("L", "R")), sos)
            direction = context if context != embedding else embedding
        for at in (start, end):
            kinds[at] = direction
            for mark in range(at + 1, len(kinds)):
                if original[mark] != "NSM":
                    break
                kinds[mark] = direction


def _neutral(kinds: list[str], sos: str, eos: str, embedding: str) -> None:
    """N1 and N2: neutrals between equal directions take it, others that of the embedding."""
    at = 0
    while at < len(kinds):
        end = at
        while end < len(kinds) and kinds[end] in _NEUTRAL:
            end += 1
        if end > at:
            left = sos if at == 0 else "L" if kinds[at - 1] == "L" else "R"
            right = eos if end == len(kinds) else "L" if kinds[end] == "L" else "R"
            kinds[at:end] = [left if left == right else embedding] * (end - at)
        at = end + 1


def _settle_removed(original: Sequence[str], resolved: list[int], base: int) -> None:
    """5.2: removed characters take the level before them, so they do not split runs."""
    for index, kind in enumerate(original):
        if kind in _REMOVED:
            resolved[index] = resolved[index - 1] if index else base


def _reset_separators(original: Sequence[str], resolved: list[int], base: int) -> None:
    """L1 for separators and the white space before them; a line's trailing space is dropped by wrapping."""
    trailing = True
    for index in range(len(original) - 1, -1, -1):
        kind = original[index]
        if kind in ("B", "S"):
            trailing = True
        elif kind not in ("WS", "PDI") and kind not in _ISOLATES and kind not in _REMOVED:
            trailing = False
        if trailing:
            resolved[index] = base
