/* The ranked features: what each is ranked by, with its interval, and what chance gives. */

import { $, el } from "../dom.mjs";
import { intervalStrip } from "../interval_strip.mjs";
import { number } from "../numbers.mjs";

const two = (value) => value.toFixed(2).replace("-", "−");
const signed = (value) => `${value > 0 ? "+" : ""}${two(value)}`;
/* Of 200 shuffles none says less than one in 200, not 0. */
const byChance = ({ by_chance: n }, { shuffles }) =>
  n || !shuffles ? number(n) : `<${number(1 / shuffles)}`;
const TIPS = {
  on: "share of the texts of this kind in which it is on at some token",
  chance: "how many features differ as much under shuffled labels, on average",
  exact: "what setting it to its reference does to the metric, by running the model",
  difference: "mean of the exact effects in positive texts less that in negative ones, in nats",
  kind: "mean of the exact effects in texts of this kind, in nats",
  estimate: "the same by gradient, which features are ranked by",
};
/* Names in a row of what has an interval, by what the features are ranked by. */
const RANKED = {
  share: ["difference", "interval"],
  mean: ["effect", "effect_interval"],
  effect: ["exact", "interval"],
};
/* How the features were found decides what is told of them. */
const COLUMNS = {
  contrast: [
    ["on in positive", (f) => two(f.on_positive), TIPS.on],
    ["on in negative", (f) => two(f.on_negative), TIPS.on],
    ["difference", (f) => signed(f.difference), "of the shares", "share"],
    ["difference in s.d.", (f) => signed(f.effect), "of the mean activation over the tokens of a text, in standard deviations", "mean"],
    ["by chance", byChance, TIPS.chance],
  ],
  effects: [
    ["estimate", (f) => number(f.estimate, true), TIPS.estimate],
    ["difference", (f) => number(f.exact, true), TIPS.difference, "effect"],
    ["in positive", (f) => number(f.positive, true), TIPS.kind],
    ["in negative", (f) => number(f.negative, true), TIPS.kind],
    ["by chance", byChance, TIPS.chance],
    ["texts", (f) => `${f.texts_on}`, "in how many texts it changes"],
  ],
  effect: [
    ["estimate", (f) => number(f.estimate, true), TIPS.estimate],
    ["exact", (f) => number(f.exact, true), `${TIPS.exact}, with its 95 % interval`, "effect"],
    ["texts", (f) => `${f.texts_on}`, "in how many texts it changes"],
  ],
  text: [["largest", (f) => number(f.activation), "activation in the text"]],
  token: [["logits", (f) => number(f.logits, true), "per unit of activation, by the direct path"]],
  label: [],
};
/* What a reader needs before the numbers, in one line. */
const EXPLAINED = {
  contrast: ({ by }) =>
    "On in positive, on in negative: the share of the texts of each kind, from 0 to 1, in which " +
    "the feature is on at some token. Difference: of these shares. " +
    "Difference in s.d.: of its mean activation over a text's tokens, in standard deviations. " +
    `Ranked by ${by === "mean" ? "this" : "the difference of the shares"}, with its 95 % interval. ` +
    "By chance: how many features would differ as much if the labels were shuffled.",
  effects: ({ metric }) =>
    `What setting the feature to zero does to the metric ${metric ?? ""}, in nats: the mean in ` +
    "positive texts, in negative ones, and the first less the second with its 95 % interval, all " +
    "by running the model. Estimate: the difference by gradient, which features are ranked by. " +
    "By chance: how many features would do as much if the labels were shuffled. " +
    "Texts: in how many the feature changes.",
  effect: ({ metric, reference }) =>
    `Change of the metric ${metric ?? ""} when the feature is set to its ` +
    `${reference ?? "reference"} value: estimate by gradient, which features are ranked by, and ` +
    "exact by running the model, with its 95 % interval. Texts: in how many the feature changes.",
  text: () => "Largest: the feature's largest activation in the text.",
  token: () =>
    "Logits: what one unit of the feature's activation adds to the token's logit by the direct " +
    "path, less what it adds to the vocabulary's on average.",
  label: () => null,
};
function cellOf([, write, , ranked], row, record, by, limit) {
  if (!ranked || ranked !== by) return el("td", { class: "number" }, write(row, record));
  const [value, ends] = RANKED[by].map((name) => row[name]);
  const end = (v) => (by === "effect" ? number(v, true) : signed(v));
  return el(
    "td",
    { class: "number drawn" },
    write(row, record),
    intervalStrip(
      { value, interval: ends },
      { width: 76, height: 14, from: -limit, to: limit, ticks: [0] },
    ),
    el("span", { class: "soft ends" }, ends ? ends.map(end).join(" to ") : "–"),
  );
}

/* `seen` says which features have a page: SITE/INDEX to address. */
export function drawRanked({ record, chosen, choose, noted }) {
  const how = record.how === "effect" && record.chance != null ? "effects" : record.how;
  const columns = COLUMNS[how];
  const by = record.how === "contrast" ? record.by : record.how;
  const sizes = record.found.flatMap((row) =>
    (RANKED[by] ?? []).flatMap((name) => row[name] ?? []),
  );
  const limit = Math.max(...sizes.map(Math.abs), 1e-30);
  const rows = record.found.map((row) =>
    el(
      "tr",
      {
        id: `row-${row.feature}`,
        class: row.feature === chosen ? "lit" : null,
        click: () => choose(row.feature),
      },
      el(
        "th",
        { scope: "row" },
        el(
          "button",
          { type: "button", "aria-pressed": String(row.feature === chosen) },
          el("bdi", {}, row.label || "–"),
          el("span", { class: "where" }, row.feature),
          noted(row.feature) && el("span", { class: "noted" }, "noted"),
        ),
      ),
      columns.map((column) => cellOf(column, row, record, by, limit)),
    ),
  );
  const head = [
    el("th", { scope: "col" }, "feature"),
    columns.map(([name, , title, ranked]) =>
      el("th", { scope: "col", title, class: ranked && ranked === by ? "right drawn" : "right" }, name),
    ),
  ];
  const explained = EXPLAINED[how](record);
  $("ranked").replaceChildren(
    ...(explained ? [el("p", { class: "note" }, explained)] : []),
    el(
      "table",
      { class: "plain" },
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, rows),
    ),
    ...remarks(record).map((text) => el("p", { class: "note" }, text)),
  );
}

/* What the table is to be read against. */
function remarks(record) {
  const said = [];
  const { positive, negative, prompts } = record.texts_read ?? {};
  if (positive)
    said.push(`${positive} positive and ${negative} negative texts; ${record.features_on.toLocaleString("en")} features on in some.`);
  if (prompts)
    said.push(`${prompts} prompts; ${record.features_on.toLocaleString("en")} features move in some.`);
  if (record.chance !== null && record.chance !== undefined)
    said.push(`Shuffled labels reach ${number(record.chance)} somewhere once in twenty times.`);
  if (record.random) {
    const { features, mean_size: size, mean_size_of_found: own } = record.random;
    said.push(
      `${features.length} random features, on in about as many texts: mean size of the exact effect ` +
        `${number(size)}, of those above ${number(own)}. Estimate and exact effect correlate by ` +
        `${record.agreement.pearson === null ? "–" : two(record.agreement.pearson)} over all of them.`,
    );
  }
  return said;
}
