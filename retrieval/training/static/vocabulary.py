"""Words and phrases of a corpus that deserve an entry of their own in a vocabulary."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from retrieval.errors import DocumentError, ModelError

CountProgress = Callable[[int], None]
"""Called with the number of texts read so far."""

NEGATIONS = ("not", "no", "never", "without")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
# Words that follow each other with one space between them, as an entry with a space needs it.
_RUN = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)+")
_PREFIXED = re.compile(r"(?<![\w-])non-[^\W\d_]{3,}(?![\w-])")
_ONE_SPACE = str.maketrans("\n\t", "  ")
_COMMON = """
a about above after again against all also although am an and another any are as at be became because become been
before being below between both but by can cannot could did do does doing done down during each either else ever
every few for from further get got had has have having he her here hers herself him himself his how however i if
in into is it its itself just least less let like made make many may me might mine more most much must my myself
neither never no nor not of off on once one only onto or other others our ours out over own per quite rather s
same shall she should since so some such t than that the their theirs them themselves then there these they thing
things this those through thus to too two under until up upon us very via was way we were what when where whether
which while who whom whose why will with within without would yet you your yours
"""
_FUNCTION_WORDS = frozenset(_COMMON.split())
_MOST_COUNTED = 2_000_000


@dataclass(frozen=True, slots=True)
class PhraseSettings:
    """Which phrases of a corpus are taken.

    Args:
        negated: Times that a negation and the word behind it, or ``non-`` with a word, must occur; 0 takes none.
        frequent: Times that two content words must follow each other; 0 takes none.
        association: Normalized pointwise mutual information that the two words of a frequent phrase need, -1 to 1.
        limit: At most so many of each kind, the most frequent ones.
    """

    negated: int = 20
    frequent: int = 50
    association: float = 0.35
    limit: int = 5000


def count_words(texts: Iterable[str], on_progress: CountProgress | None = None) -> Counter[str]:
    """How often each word occurs, in lower case; numbers are not counted."""
    counts: Counter[str] = Counter()
    for number, text in enumerate(texts, 1):
        counts.update(_WORD.findall(text.lower()))
        _bound(counts)
        if on_progress is not None and number % 1000 == 0:
            on_progress(number)
    return counts


def frequent_words(counts: Counter[str], *, least: int, limit: int, known: Container[str] = ()) -> list[str]:
    """The most frequent words that are not ``known``, most frequent first, then by name.

    Args:
        counts: From `count_words`.
        least: Times that a word must occur.
        limit: At most so many.
        known: Words that a vocabulary has already.
    """
    new = [(-count, word) for word, count in counts.items() if count >= least and word not in known]
    return [word for _, word in sorted(new)[:limit]]


def find_phrases(texts: Iterable[str], settings: PhraseSettings = PhraseSettings()) -> list[str]:
    """Negated phrases (``not broken``, ``without pain``, ``non-smoking``), then frequent ones (``heart attack``).

    Args:
        texts: The corpus.
        settings: How many of each kind, and how frequent.

    Returns:
        In lower case, each kind most frequent first, then by name.

    Source:
        Normalized pointwise mutual information, https://svn.spraakdata.gu.se/repos/gerlof/pub/www/Docs/npmi-pfd.pdf
    """
    words: Counter[str] = Counter()
    negated: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for text in texts:
        lower = text.lower().translate(_ONE_SPACE)
        negated.update(_PREFIXED.findall(lower))
        for match in _RUN.finditer(lower):
            run = match.group().split(" ")
            words.update(run)
            for first, second in itertools.pairwise(run):
                if len(second) < 3 or second in _FUNCTION_WORDS:
                    continue
                if first in NEGATIONS:
                    negated[f"{first} {second}"] += 1
                elif len(first) >= 3 and first not in _FUNCTION_WORDS:
                    pairs[f"{first} {second}"] += 1
        _bound(pairs)
    total = words.total()

    def association(phrase: str) -> float:
        first, second = phrase.split(" ")
        together = pairs[phrase] / total
        return math.log(together * total * total / (words[first] * words[second])) / -math.log(together)

    taken = frequent_words(negated, least=settings.negated, limit=settings.limit) if settings.negated else []
    if settings.frequent:
        bound = Counter({p: n for p, n in pairs.items() if n >= settings.frequent})
        bound = Counter({p: n for p, n in bound.items() if association(p) >= settings.association})
        taken += frequent_words(bound, least=settings.frequent, limit=settings.limit)
    return taken


def read_phrases(path: str | Path) -> list[str]:
    """Phrases of a text file, one a line; blank lines and lines that begin with ``#`` are skipped.

    Raises:
        DocumentError: The file cannot be read or holds none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"the phrases in {path} cannot be read: {error}") from error
    phrases = [" ".join(line.split()) for line in lines]
    found = list(dict.fromkeys(phrase for phrase in phrases if phrase and not phrase.startswith("#")))
    if not found:
        raise DocumentError(f"{path} holds no phrases; write one a line")
    return found


def keep_tokens(tokenizer: Tokenizer, used: Iterable[int]) -> tuple[Tokenizer, list[int]]:
    """A tokenizer with only some tokens of its vocabulary, numbered anew.

    Single characters, the unknown token and added tokens stay in any case: rare words are still cut into pieces.

    Args:
        tokenizer: One with WordPiece.
        used: Ids of the tokens that stay.

    Returns:
        The tokenizer, and the old id of each new one.

    Raises:
        ModelError: The tokenizer is of another kind.
    """
    parts = json.loads(tokenizer.to_str())
    if parts["model"]["type"] != "WordPiece":
        raise ModelError(
            f"a vocabulary from the corpus alone needs a teacher with WordPiece, not {parts['model']['type']}; "
            "add words of the corpus to the teacher's vocabulary instead"
        )
    vocabulary: dict[str, int] = parts["model"]["vocab"]
    prefix = parts["model"]["continuing_subword_prefix"]
    keep = set(used) | {vocabulary[parts["model"]["unk_token"]]} | {token["id"] for token in parts["added_tokens"]}
    keep |= {at for token, at in vocabulary.items() if len(token.removeprefix(prefix)) == 1}
    old = sorted(keep)
    new = {token: number for number, token in enumerate(old)}
    parts["model"]["vocab"] = {token: new[at] for token, at in vocabulary.items() if at in keep}
    for token in parts["added_tokens"]:
        token["id"] = new[token["id"]]
    parts["post_processor"] = None
    return Tokenizer.from_str(json.dumps(parts)), old


def _bound(counts: Counter[str]) -> None:
    """Forget what occurred once when there are too many to keep."""
    if len(counts) > _MOST_COUNTED:
        for key in [key for key, count in counts.items() if count == 1]:
            del counts[key]
