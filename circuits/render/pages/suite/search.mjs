/* Which features a few words mean: by the tokens they promote, fire on, or have around them. */

import { data, featureCalled, features, record, textRows } from "./data.mjs";

const EXACT = 4;
let texts = null;

/* How well each token of the vocabulary matches: the whole token, its beginning, or a part. */
function tokenMatches(query) {
  return Uint8Array.from(record.vocabulary, (word) => {
    const token = word.trim().toLowerCase();
    if (token === query) return EXACT;
    return token.startsWith(query) ? 2 : Number(token.includes(query));
  });
}

function promotes(matches) {
  const { width } = data.promoted;
  return (feature) => {
    let best = 0;
    for (let i = 0; i < width; i += 1)
      best = Math.max(best, matches[data.promoted[feature * width + i]] * (1 - i / (2 * width)));
    return best / EXACT;
  };
}

/* Share of the strongest examples whose own token matches. */
function firesOn(matches) {
  const { width } = data.row;
  const rows = textRows();
  return (feature) => {
    let sum = 0;
    let seen = 0;
    for (let at = feature * width; at < feature * width + record.top; at += 1) {
      if (data.row[at] >= rows) continue;
      seen += 1;
      sum += matches[data.tokens[data.row[at] * data.tokens.width + data.position[at]]];
    }
    return seen ? sum / seen / EXACT : 0;
  };
}

/* The rows of text as they read, and where each token begins. */
function readTexts() {
  const { width } = data.tokens;
  return Array.from({ length: textRows() }, (_, row) => {
    const starts = new Uint32Array(width + 1);
    let text = "";
    for (let i = 0; i < width; i += 1) {
      text += record.vocabulary[data.tokens[row * width + i]].toLowerCase();
      starts[i + 1] = text.length;
    }
    return { text, starts };
  });
}

/* For every row the number of tokens before each place at which the phrase begins. */
function phraseCounts(query) {
  texts ??= readTexts();
  const width = data.tokens.width + 1;
  const before = new Uint16Array(texts.length * width);
  texts.forEach(({ text, starts }, row) => {
    let found = text.indexOf(query);
    let count = 0;
    for (let i = 0; i + 1 < width; i += 1) {
      if (found !== -1 && found < starts[i + 1]) {
        count += 1;
        while (found !== -1 && found < starts[i + 1]) found = text.indexOf(query, found + 1);
      }
      before[row * width + i + 1] = count;
    }
  });
  return { before, width };
}

/* Share of the examples with the phrase in them. */
function holds(query) {
  const { before, width } = phraseCounts(query);
  const rows = textRows();
  return (feature) => {
    let hits = 0;
    let seen = 0;
    for (let at = feature * data.row.width; at < (feature + 1) * data.row.width; at += 1) {
      if (data.row[at] >= rows) continue;
      seen += 1;
      const start = data.row[at] * width;
      const first = Math.max(0, data.position[at] - record.around);
      const last = Math.min(width - 1, data.position[at] + record.around + 1);
      hits += before[start + last] > before[start + first];
    }
    return seen ? hits / seen : 0;
  };
}

function scorer(query, scope) {
  const matches = tokenMatches(query.trim());
  const parts = {
    promotes: () => promotes(matches),
    fires: () => firesOn(matches),
    text: () => holds(query),
  };
  if (scope !== "any") return parts[scope]();
  const [said, fired, around] = Object.values(parts).map((part) => part());
  return (feature) => fired(feature) + said(feature) + around(feature) / 4;
}

/* Features in the order asked for; `dictionary` is a name or null for all of them. */
export function search({ query, scope, order, silent, dictionary }) {
  const called = featureCalled(query);
  if (called !== null) return [called];
  const words = query.toLowerCase();
  const score = words.trim() ? scorer(words, scope) : () => 1;
  const scores = new Float32Array(features);
  const found = [];
  for (const { name, first, features: count } of record.dictionaries) {
    if (dictionary !== null && name !== dictionary) continue;
    for (let feature = first; feature < first + count; feature += 1) {
      if (!silent && !(data.largest[feature] > 0)) continue;
      scores[feature] = score(feature);
      if (scores[feature] > 0) found.push(feature);
    }
  }
  const by = order === "match" ? scores : data[order];
  return found.sort((a, b) => by[b] - by[a] || a - b);
}
