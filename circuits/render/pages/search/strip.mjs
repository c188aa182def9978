/* Texts as strips of tokens, coloured by one feature; tokens that only together make a character
   are one run. */

import { el } from "../dom.mjs";
import { number } from "../numbers.mjs";

const SPECIAL = /^<\|.*\|>$/;
const FAINTEST = 0.02;

/* What a feature does on a run: its largest activation there. */
function onRun(run, values) {
  let most = 0;
  for (let token = run.first; token < run.first + run.pieces.length; token += 1) {
    const value = values.get(token) ?? 0;
    if (Math.abs(value) > Math.abs(most)) most = value;
  }
  return most;
}

export const largestOf = (texts, feature) =>
  Math.max(...texts.flatMap((text) => (text.on[feature] ?? []).map(([, v]) => Math.abs(v))), 0);

/* One text: a list of runs, of which one at most is chosen. */
export function strip({ text, number: at, feature, largest, chosen, pick }) {
  const values = new Map(text.on[feature] ?? []);
  const runs = text.runs.map((run, place) => {
    const value = onRun(run, values);
    const share = largest ? Math.min(1, Math.abs(value) / largest) : 0;
    return el(
      "span",
      {
        role: "option",
        id: `run-${at}-${place}`,
        "aria-selected": String(chosen === place),
        title: `${run.text.trim() || run.text}: ${number(value)}`,
        class: [SPECIAL.test(run.text) && "special", value < 0 && "below"].filter(Boolean).join(" ") || null,
        style: share > FAINTEST ? { background: `rgb(var(--mark) / calc(0.12 + ${share} * var(--deep)))` } : {},
        click: () => pick(at, place),
      },
      run.text,
    );
  });
  const kind = text.kind ? `${text.kind} text` : "text";
  return el(
    "div",
    {
      class: "example strip-of-tokens",
      dir: "auto",
      role: "listbox",
      tabindex: 0,
      id: `text-${at}`,
      "aria-label": `${kind} ${at + 1}`,
      "aria-orientation": "horizontal",
      "aria-activedescendant": chosen === null ? null : `run-${at}-${chosen}`,
      keydown: (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const ends = { Home: 0, End: runs.length - 1 }[event.key];
        if (by === undefined && ends === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        const next = ends ?? (chosen === null ? 0 : chosen + by);
        pick(at, Math.max(0, Math.min(runs.length - 1, next)));
      },
    },
    runs,
  );
}

/* The features that write most at each token of a run. */
export function topsOf({ text, run, labels, chosen, choose }) {
  const rows = run.pieces.map((piece, i) => {
    const tops = text.tops[run.first + i];
    return [
      run.pieces.length > 1 &&
        el("li", { class: "piece" }, el("span", { class: "mono" }, piece), `, token ${run.first + i + 1}`),
      tops.length
        ? tops.map(([feature, activation]) =>
            el(
              "li",
              {},
              el(
                "button",
                {
                  type: "button",
                  "aria-pressed": String(feature === chosen),
                  title: feature,
                  click: () => choose(feature),
                },
                el(
                  "span",
                  { class: "who" },
                  el("bdi", {}, labels[feature] ?? "–"),
                  el("span", { class: "where" }, feature),
                ),
                el("span", { class: "number" }, number(activation)),
              ),
            ),
          )
        : el("li", { class: "soft" }, "no feature is on"),
    ];
  });
  const at = run.pieces.length > 1 ? `tokens ${run.first + 1} to ${run.first + run.pieces.length}` : `token ${run.first + 1}`;
  return el(
    "section",
    { "aria-label": "Features at the chosen token", class: "at-token" },
    el("h3", {}, "At ", el("bdi", { class: "token" }, run.text), `, ${at}`),
    el("ul", { class: "links" }, rows),
  );
}
