/* The suite's record, and a feature's card put together from it. */

import { $ } from "../dom.mjs";
import { trimmed } from "../bars.mjs";

const ARRAYS = {
  f4: Float32Array,
  u4: Uint32Array,
  u2: Uint16Array,
  u1: Uint8Array,
  i2: Int16Array,
};
const STEPS = { activation: 65535, window: 255 };
export let record = null;
export let data = {};
export let features = 0;

async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

export async function load() {
  record = await (await unpacked("data-record")).json();
  const buffer = await (await unpacked("data-arrays")).arrayBuffer();
  for (const [name, { type, shape, at }] of Object.entries(record.arrays)) {
    const length = shape.reduce((product, n) => product * n, 1);
    data[name] = new ARRAYS[type](buffer, at, length);
    data[name].width = shape[1] ?? 1;
  }
  features = data.density.length;
}

const rowOf = (name, feature) =>
  data[name].subarray(feature * data[name].width, (feature + 1) * data[name].width);
export const textRows = () => data.tokens.length / data.tokens.width;
const dictionaryOf = (feature) => record.dictionaries.findLast((d) => d.first <= feature);

export function nameOf(feature) {
  const dictionary = dictionaryOf(feature);
  return `${dictionary.name}/${feature - dictionary.first}`;
}

/* The feature called SITE/INDEX, or null. */
export function featureCalled(name) {
  const [, called, index] = /^(.+)\/(\d+)$/.exec(name.trim()) ?? [];
  const dictionary = record.dictionaries.find((d) => d.name === called);
  return dictionary && Number(index) < dictionary.features
    ? dictionary.first + Number(index)
    : null;
}

/* How often each activation comes; null for a feature that is never active, or an older record. */
export const histogramOf = (feature) =>
  record.histogram && trimmed(record.histogram, rowOf("histogram", feature));

function scored(kind, feature) {
  const scores = rowOf(`${kind}_score`, feature);
  return Array.from(rowOf(kind, feature), (id, i) => [
    record.vocabulary[id],
    scores[i] / record.score_steps,
  ]);
}

function alike(kind, feature) {
  const cosines = rowOf(`${kind}_cosine`, feature);
  return Array.from(rowOf(kind, feature), (other, i) => [other, cosines[i]])
    .filter(([other]) => other < features)
    .map(([other, cosine]) => ({
      feature: nameOf(other),
      label: record.labels[other],
      cosine: cosine / record.cosine_steps,
    }));
}

/* Examples from place `from` up to `to`, strongest first. */
function examplesOf(feature, from, to) {
  const rows = rowOf("row", feature);
  const places = Array.from({ length: Math.min(to, rows.length) - from }, (_, i) => from + i);
  return places
    .filter((place) => rows[place] < textRows())
    .map((place) => exampleAt(feature, place));
}

function exampleAt(feature, place) {
  const at = feature * data.row.width + place;
  const { width } = data.tokens;
  const shown = 2 * record.around + 1;
  const position = data.position[at];
  const first = Math.max(0, position - record.around);
  const last = Math.min(width, position + record.around + 1);
  const start = data.row[at] * width;
  const window = at * shown + record.around - position;
  const largest = data.largest[feature];
  const values = Array.from(
    data.window.subarray(window + first, window + last),
    (step) => (largest * step) / STEPS.window,
  );
  values[position - first] = (largest * data.activation[at]) / STEPS.activation;
  const ids = data.tokens.subarray(start + first, start + last);
  return {
    tokens: Array.from(ids, (id) => record.vocabulary[id]),
    values,
    peak: position - first,
  };
}

export function cardOf(feature) {
  const dictionary = dictionaryOf(feature);
  const largest = data.largest[feature];
  return {
    feature: nameOf(feature),
    label: record.labels[feature],
    source: dictionary.source,
    target: dictionary.target,
    run: record.run && { graph: record.run.graph, nodes: record.run.nodes[nameOf(feature)] ?? [] },
    architecture: dictionary.architecture,
    features: dictionary.features,
    density: data.density[feature],
    max_activation: largest > 0 ? largest : null,
    tokens_seen: record.tokens_seen,
    histogram: histogramOf(feature),
    promoted: scored("promoted", feature),
    suppressed: scored("suppressed", feature),
    examples: examplesOf(feature, 0, record.top),
    sampled: examplesOf(feature, record.top, data.row.width),
    nearest: {
      decoder: alike("decoder", feature),
      encoder: alike("encoder", feature),
      layers: alike("layers", feature),
    },
  };
}
