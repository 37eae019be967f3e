// BERT's tokenizer as tokenizer.json describes it: the same token ids as the Hugging Face library `tokenizers`.
// Known: BertNormalizer, BertPreTokenizer and WordPiece, which the bundled model has; others are refused in words.

import { ACCENTS, DROPPED, SPLITTING } from "./unicode.js";

const LAST = 0x110000;
// Rust's char::is_whitespace; the tokenizer's own table is made of it.
const SPACES = new Set([0x9, 0xa, 0xb, 0xc, 0xd, 0x20, 0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000]);
for (let code = 0x2000; code <= 0x200a; code++) SPACES.add(code);
const CHINESE = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f], [0x2b920, 0x2ceaf],
  [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];

// Characters that newer versions of Unicode take apart and the tokenizer does not.
const WHOLE = /([\u{105c9}\u{105e4}\u{11380}-\u{113ff}\u{11938}\u{16120}-\u{1613f}\u{16d40}-\u{16d7f}]+)/u;

function table(text) {
  const bits = new Uint8Array(LAST);
  const numbers = text.split(" ").map((word) => parseInt(word, 36));
  let last = 0;
  for (let at = 0; at < numbers.length; at += 2) {
    const first = last + numbers[at];
    last = first + numbers[at + 1];
    bits.fill(1, first, last + 1);
  }
  return bits;
}

const dropped = table(DROPPED);
const accents = table(ACCENTS);
const splitting = table(SPLITTING);
const isChinese = (code) => CHINESE.some(([first, last]) => code >= first && code <= last);
const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");

export class Tokenizer {
  /** @param {object} description What tokenizer.json holds. */
  constructor(description) {
    const { normalizer, pre_tokenizer: splitter, model, added_tokens: added } = description;
    const kinds = [normalizer?.type, splitter?.type, model?.type].join(", ");
    if (kinds !== "BertNormalizer, BertPreTokenizer, WordPiece") {
      throw new Error(`this page knows BertNormalizer, BertPreTokenizer and WordPiece, not ${kinds}`);
    }
    this.lowercase = normalizer.lowercase;
    this.clean = normalizer.clean_text;
    this.chinese = normalizer.handle_chinese_chars;
    this.strip = normalizer.strip_accents ?? normalizer.lowercase;
    this.vocabulary = new Map(Object.entries(model.vocab));
    this.prefix = model.continuing_subword_prefix;
    this.longest = model.max_input_chars_per_word;
    this.unknown = this.vocabulary.get(model.unk_token);
    this.words = new Map();
    this.raw = finder(added.filter((token) => !token.normalized), (text) => text);
    this.normal = finder(added.filter((token) => token.normalized), (text) => this.normalize(text));
  }

  /** Token ids of a text, without special tokens and not cut. */
  ids(text) {
    const ids = [];
    // Half of a surrogate pair has no form in UTF-8, where it becomes a question mark.
    for (const part of this.raw(text.replace(/\p{Surrogate}/gu, "?"))) {
      if (part.id !== undefined) ids.push(part.id);
      else {
        for (const inner of this.normal(this.normalize(part.text))) {
          if (inner.id !== undefined) ids.push(inner.id);
          else this.split(inner.text, ids);
        }
      }
    }
    return ids;
  }

  normalize(text) {
    let clean = "";
    for (const character of text) {
      const code = character.codePointAt(0);
      if (this.clean && dropped[code]) continue;
      if (this.clean && SPACES.has(code)) clean += " ";
      else if (this.chinese && isChinese(code)) clean += ` ${character} `;
      else clean += character;
    }
    if (this.strip) {
      let bare = "";
      const parts = clean.split(WHOLE).map((part, at) => (at % 2 ? part : part.normalize("NFD")));
      for (const character of parts.join("")) if (!accents[character.codePointAt(0)]) bare += character;
      clean = bare;
    }
    if (!this.lowercase) return clean;
    // One character at a time: a whole word would get another sigma at its end.
    let lower = "";
    for (const character of clean) lower += character.toLowerCase();
    return lower;
  }

  split(text, ids) {
    let word = "";
    for (const character of text) {
      const code = character.codePointAt(0);
      const space = SPACES.has(code);
      if (!space && !splitting[code]) {
        word += character;
        continue;
      }
      if (word) this.pieces(word, ids);
      word = "";
      if (!space) this.pieces(character, ids);
    }
    if (word) this.pieces(word, ids);
  }

  /** The longest pieces of the vocabulary, from left to right; one unknown token where they do not cover the word. */
  pieces(word, ids) {
    let known = this.words.get(word);
    if (known === undefined) {
      known = this.cut(word);
      if (this.words.size > 50000) this.words.clear();
      this.words.set(word, known);
    }
    for (const id of known) ids.push(id);
  }

  cut(word) {
    const characters = Array.from(word);
    if (characters.length > this.longest) return [this.unknown];
    const found = [];
    for (let start = 0; start < characters.length; ) {
      let end = characters.length;
      let id;
      for (; end > start; end--) {
        const piece = characters.slice(start, end).join("");
        id = this.vocabulary.get(start ? this.prefix + piece : piece);
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.unknown];
      found.push(id);
      start = end;
    }
    return found;
  }
}

/** Cuts a text at tokens that stand in it as they are, such as [UNK]; the first one counts, of several the longest. */
function finder(tokens, written) {
  if (!tokens.length) return (text) => (text ? [{ text }] : []);
  const ids = new Map(tokens.map((token) => [written(token.content), token]));
  const ordered = [...ids.keys()].filter(Boolean).sort((one, other) => other.length - one.length);
  const pattern = new RegExp(ordered.map(escaped).join("|"), "gu");
  const letter = /[\p{L}\p{N}_]/u;
  return (text) => {
    const parts = [];
    let start = 0;
    for (const match of text.matchAll(pattern)) {
      const token = ids.get(match[0]);
      let [from, to] = [match.index, match.index + match[0].length];
      const alone = !letter.test(text.slice(0, from).slice(-1)) && !letter.test(text.slice(to, to + 1));
      if (token.single_word && !alone) continue;
      if (token.lstrip) while (from > start && SPACES.has(text.charCodeAt(from - 1))) from--;
      if (token.rstrip) while (to < text.length && SPACES.has(text.charCodeAt(to))) to++;
      if (from > start) parts.push({ text: text.slice(start, from) });
      parts.push({ id: token.id });
      start = to;
    }
    if (start < text.length) parts.push({ text: text.slice(start) });
    return parts;
  };
}
