/* The card of one feature. `open(feature)` follows a neighbour, where there is a page to follow in. */

import { el } from "../dom.mjs";
import { number, percent } from "../numbers.mjs";
import { histogram } from "../histogram.mjs";

const SPECIAL = /^<\|.*\|>$|^<[a-z_/]+>$/;

export function sheet(card, open = null) {
  const largest = card.max_activation || 1;
  return [
    el("h2", { class: "name" }, el("bdi", {}, card.label)),
    identity(card),
    naming(card),
    inGraph(card),
    measures(card),
    histogram(card.histogram),
    el(
      "div",
      { class: "two" },
      scoredTokens("Promotes", card.promoted),
      scoredTokens("Suppresses", card.suppressed),
    ),
    passages("Top examples", card.examples, largest),
    passages("Sampled wherever it is active", card.sampled, largest),
    el(
      "div",
      { class: "two" },
      neighbours("Nearest by decoder, cosine", card.nearest.decoder, open),
      neighbours("Nearest by encoder, cosine", card.nearest.encoder, open),
    ),
    neighbours("Best match in each other layer, cosine of decoders", card.nearest.layers, open),
  ].filter(Boolean);
}

function identity(card) {
  const reads = card.source === card.target ? null : `reads ${card.source}, writes ${card.target}`;
  return el(
    "div",
    { class: "facts" },
    el("span", { class: "mono" }, card.feature),
    reads && el("span", {}, reads),
    el("span", {}, `${card.architecture}, ${card.features.toLocaleString("en")} features`),
    card.model && el("span", {}, card.model),
  );
}

/* Who named it, and how well a judge tells by the name where it is on, beside other names. */
function naming({ label_by: by, scores }) {
  if (!by) return null;
  const rows = ["detection", "fuzzing"]
    .map((kind) => [kind, scores?.[kind]])
    .filter(([, found]) => found && found.balanced_accuracy !== null);
  const two = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
  const controls = Object.keys(rows[0]?.[1].controls ?? {});
  return el(
    "section",
    { "aria-label": "Who named it" },
    el("p", { class: "note" }, `Named by ${by}`, rows.length ? `, judged by ${scores.judge}` : ""),
    rows.length &&
      el(
        "table",
        { class: "plain naming" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["balanced accuracy", "this name", ...controls].map((name) =>
              el("th", { scope: "col" }, name),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          rows.map(([kind, found]) =>
            el(
              "tr",
              {},
              el("th", { scope: "row" }, kind),
              el(
                "td",
                { class: "number" },
                two(found.balanced_accuracy),
                found.interval &&
                  el("span", { class: "soft" }, ` ${found.interval.map(two).join(" to ")}`),
              ),
              controls.map((name) => el("td", { class: "number" }, two(found.controls[name]))),
            ),
          ),
        ),
      ),
  );
}

/* To the nodes of the run's graph that are of this feature, and to the page of all features. */
function inGraph({ feature, run }) {
  if (!run) return null;
  const to = (key) => `${run.graph}#node=${encodeURIComponent(key)}`;
  const nodes = run.nodes.map((key, i) => [i ? ", " : "", el("a", { href: to(key) }, key)]);
  return el(
    "p",
    { class: "note" },
    nodes.length ? ["In the graph: ", nodes] : ["Not in ", el("a", { href: run.graph }, "the graph")],
    run.suite && [
      " · ",
      el("a", { href: `${run.suite}#feature=${encodeURIComponent(feature)}` }, "among all features"),
    ],
  );
}

function measures(card) {
  const figures = [
    ["active on", card.max_activation === null ? "no token" : percent(card.density)],
    ["largest activation", number(card.max_activation)],
    ["tokens looked at", card.tokens_seen.toLocaleString("en")],
  ];
  return el(
    "dl",
    { class: "figures" },
    figures.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))),
  );
}

/* Tokens with their scores, a bar as long as the score is large. */
export function scoredTokens(title, pairs) {
  const largest = Math.max(...pairs.map(([, score]) => Math.abs(score)), 1e-30);
  return el(
    "div",
    {},
    el("h3", {}, title),
    el(
      "ul",
      { class: "scored" },
      pairs.map(([token, score]) =>
        el(
          "li",
          {},
          el("bdi", { class: "token" }, token),
          el("span", { class: "number soft" }, number(score, true)),
          el("i", { style: { width: `${(100 * Math.abs(score)) / largest}%` } }),
        ),
      ),
    ),
  );
}

export function passages(title, examples, largest) {
  if (!examples.length) return null;
  return el(
    "section",
    { class: "passages", "aria-label": title },
    el("h3", {}, title),
    examples.map((example) =>
      el(
        "div",
        { class: "passage" },
        el("span", { class: "number soft" }, number(example.values[example.peak])),
        passage(example, largest),
      ),
    ),
  );
}

/* Each token on a ground as deep as its activation, the one the passage is about underlined. */
function passage({ tokens, values, peak }, largest) {
  const spans = tokens.map((token, index) => {
    const share = Math.max(0, Math.min(1, values[index] / largest));
    const classes = [SPECIAL.test(token) && "special", index === peak && "peak"].filter(Boolean);
    return el(
      "span",
      {
        title: `${token.trim() || token}: ${number(values[index])}`,
        class: classes.join(" ") || null,
        style: share > 0.02 ? { background: `rgb(var(--mark) / calc(0.12 + ${share} * var(--deep)))` } : {},
      },
      token,
    );
  });
  return el("p", { class: "example", dir: "auto" }, spans);
}

function neighbours(title, rows, open) {
  if (!rows.length) return null;
  const line = ({ feature, label, cosine }) => [
    el("span", { class: "who" }, el("bdi", {}, label), el("span", { class: "where" }, feature)),
    el("span", { class: "number" }, number(Number(cosine.toFixed(2)), true)),
  ];
  const item = (row) =>
    open
      ? el(
          "button",
          { type: "button", title: row.feature, click: () => open(row.feature) },
          line(row),
        )
      : el("div", {}, line(row));
  return el(
    "div",
    {},
    el("h3", {}, title),
    el(
      "ul",
      { class: "links" },
      rows.map((row) => el("li", {}, item(row))),
    ),
  );
}
