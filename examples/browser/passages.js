// The passages of `retrieval export --with-index` and the search over them: every vector is compared, which is exact.

import { fetched, tensors } from "./model.js";

export class Passages {
  constructor(passages, rows, scales, dim) {
    this.passages = passages;
    this.rows = rows;
    this.scales = scales;
    this.dim = dim;
  }

  static async open(folder) {
    const [content, buffer] = await Promise.all([
      fetched(`${folder}/passages.json`).then((answer) => answer.json()),
      fetched(`${folder}/passages.safetensors`).then((answer) => answer.arrayBuffer()),
    ]);
    if (content.format !== "two-stage-passages" || content.version !== 1) {
      throw new Error(`${folder}/passages.json has format ${content.format} ${content.version}, which is not known here`);
    }
    const { vectors, scales } = tensors(buffer);
    return new Passages(content.passages, vectors.data, scales.data, content.dim);
  }

  /** The best passage of each document, best first: [{passage, score}]. A vector of zeros finds nothing. */
  search(vector, count) {
    if (!vector.some(Boolean)) return [];
    const { rows, scales, dim } = this;
    const best = new Map();
    for (let row = 0, start = 0; row < scales.length; row++, start += dim) {
      let sum = 0;
      for (let at = 0; at < dim; at++) sum += vector[at] * rows[start + at];
      const score = sum * scales[row];
      const id = this.passages[row].id;
      const known = best.get(id);
      if (!known || score > known.score) best.set(id, { row, score });
    }
    return [...best.values()]
      .sort((one, other) => other.score - one.score || one.row - other.row)
      .slice(0, count)
      .map(({ row, score }) => ({ passage: this.passages[row], score }));
  }
}
