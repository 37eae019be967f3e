// A static model as `retrieval export` writes it: the vector of a text is the sum of its tokens' rows at unit length.

import { Tokenizer } from "./tokenizer.js";

const KINDS = { I8: Int8Array, F32: Float32Array, I64: BigInt64Array };

/** The tensors of a safetensors file by name, each {data, shape}. */
export function tensors(buffer) {
  const size = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const found = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (!KINDS[dtype]) throw new Error(`${name} has dtype ${dtype}; this page reads ${Object.keys(KINDS).join(", ")}`);
    // Copied, because numbers of several bytes need not begin where such an array may.
    found[name] = { data: new KINDS[dtype](buffer.slice(8 + size + start, 8 + size + end)), shape };
  }
  return found;
}

/** What lies at a relative address; an error names it. */
export async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
  return answer;
}

export class Model {
  constructor(tokenizer, weights, config) {
    const { embeddings, weights: scales, mapping } = weights;
    this.tokenizer = tokenizer;
    this.rows = embeddings.data;
    this.dim = embeddings.shape[1];
    this.scales = scales?.data;
    this.mapping = mapping && Int32Array.from(mapping.data, Number);
    this.tokens = config.max_length ?? Infinity;
  }

  /** Open a folder that `retrieval export` has written. */
  static async open(folder) {
    const [description, config, buffer] = await Promise.all([
      fetched(`${folder}/tokenizer.json`).then((answer) => answer.json()),
      fetched(`${folder}/config.json`).then((answer) => answer.json()),
      fetched(`${folder}/model.safetensors`).then((answer) => answer.arrayBuffer()),
    ]);
    return new Model(new Tokenizer(description), tensors(buffer), config);
  }

  /** Ids of the tokens that count; rows of those that do not are zero. */
  ids(text) {
    const ids = this.tokenizer.ids(text);
    return ids.length > this.tokens ? ids.slice(0, this.tokens) : ids;
  }

  /** The vector of a text, all zero where no token of it is known. */
  encode(text) {
    const { rows, scales, mapping, dim } = this;
    const sum = new Float64Array(dim);
    for (const id of this.ids(text)) {
      const start = (mapping ? mapping[id] : id) * dim;
      const scale = scales ? scales[id] : 1;
      for (let at = 0; at < dim; at++) sum[at] += rows[start + at] * scale;
    }
    let square = 0;
    for (const value of sum) square += value * value;
    const norm = Math.sqrt(square) || 1;
    return Float32Array.from(sum, (value) => value / norm);
  }
}
