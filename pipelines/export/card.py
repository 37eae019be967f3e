"""The README of an exported model: what it is, how it is opened, what differs, under which licence."""

from __future__ import annotations

import re

from retrieval.datatypes import EncoderFingerprint
from retrieval.token_tables import Portable, Precision

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LICENCE_NAME = re.compile(r"[A-Za-z0-9.+-]{1,60}")

_OPENING = """
## Open it

```python
from model2vec import StaticModel                            # {model2vec}
vectors = StaticModel.from_pretrained("FOLDER").encode(["a text"])

from sentence_transformers import SentenceTransformer        # {sentence_transformers}
vectors = SentenceTransformer("FOLDER").encode(["a text"])
```

The vector of a text is the sum of the rows of its tokens at unit length; a text without a known token is all zero.
Compare vectors by their dot product, which is the cosine.
"""


def model_card(
    origin: str,
    card: str,
    licence: str | None,
    fingerprint: EncoderFingerprint,
    written: Portable,
    precision: Precision,
) -> str:
    """Markdown with the block of metadata that model hubs read.

    Args:
        origin: What the model is, in words.
        card: Card of the model that it was made from, empty where there is none.
        licence: As model cards write it, ``None`` where it is not known.
        fingerprint: Of the encoder that was exported.
        written: What was written.
        precision: Of the table.
    """
    known = licence if licence is not None and _LICENCE_NAME.fullmatch(licence) else None
    parts = [
        "---",
        f"license: {known or 'other'}",
        "library_name: model2vec",
        "tags: [model2vec, sentence-transformers, static-embeddings]",
        "---",
        "",
        f"# {fingerprint.name}, exported",
        "",
        f"{origin[0].upper()}{origin[1:]}: {written.tokens:,} token vectors with {written.dim} dimensions, "
        f"{precision}.",
        f"Fingerprint of the encoder: `{fingerprint}`.",
        "",
        "| file | content |",
        "|---|---|",
        f"| `model.safetensors` | {_tensors(precision)} |",
        "| `tokenizer.json` | the tokenizer of the Hugging Face library `tokenizers` |",
        "| `config.json` | read by model2vec |",
        "| `modules.json`, `config_sentence_transformers.json` | read by sentence-transformers |",
        _OPENING.format(**_VERSIONS[precision]),
        *_differences(written, precision),
        "",
        "## Licence",
        "",
        _licence(known),
    ]
    text = "\n".join(parts) + "\n"
    if card:
        # Its headings go one level down, outside of code.
        body = re.sub(r"^(#{1,5} )", r"#\1", _FRONT_MATTER.sub("", card.replace("\r\n", "\n")), flags=re.MULTILINE)
        text += f"\n## Card of the model that it was made from\n\n{body.strip()}\n"
    return text


_VERSIONS = {
    "int8": {"model2vec": "0.10 or newer", "sentence_transformers": "6.2 or newer"},
    "float32": {"model2vec": "0.10 or newer", "sentence_transformers": "5.0 or newer"},
}


def _tensors(precision: Precision) -> str:
    if precision == "float32":
        return "`embeddings` float32 (tokens, dimensions)"
    return "`embeddings` int8 (tokens, dimensions), `weights` float32 (tokens,); the vector of a token is their product"


def _differences(written: Portable, precision: Precision) -> list[str]:
    lines = []
    if written.exact:
        lines.append("Nothing was rounded: every token has the same vector as in the model that was exported.")
    else:
        lines.append(
            f"The rows were rounded to {precision}; the cosine of a token's vector with the one before is at least "
            f"{written.lowest_cosine:.5f}."
        )
    return [*lines, *(f"\nWhat differs: {limit}." for limit in written.limits)]


def _licence(licence: str | None) -> str:
    if licence is None:
        return "The licence of the model that it was made from is not known here: look at where that came from."
    return (
        f"The model that it was made from has the licence {licence}, and this copy has no other. Where it was adapted "
        "to documents, its numbers were computed from them; it does not contain them."
    )
