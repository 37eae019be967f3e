// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const kinds = new Intl.PluralRules("en", { type: "ordinal" });
const endings = { one: "st", two: "nd", few: "rd", other: "th" };

/** 12345 as "12,345". */
export const count = (value) => whole.format(value);

/** "1 hit", "2 hits". */
export const several = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** "1st", "2nd". */
export const ordinal = (value) => `${count(value)}${endings[kinds.select(value)]}`;

/** A time with about two digits that matter: "0.4 ms", "12 ms", "1.3 s". */
export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10000 ? 0 : 1)} s`;
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

/** A score with a fixed number of decimals. */
export const score = (value, decimals = 3) => value.toFixed(decimals);

/** 0.973 as "97 %". */
export const percent = (value) => `${Math.round(value * 100)} %`;

/** Bytes as "3.2 MB". */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
