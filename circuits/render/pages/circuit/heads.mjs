/* The card of a head, and which heads carry a node or the graph. */

import { el, seen } from "../dom.mjs";
import { number, percent } from "../numbers.mjs";
import { carriers, edgesThrough } from "./paths.mjs";
import {
  byKey, closeInner, edges, inputs, nodes, openEdge, openHead, outputs, payload, view,
} from "./state.mjs";
import { edgeCard } from "./edge.mjs";
import { bar, keyOf, row, sign, where } from "./links.mjs";
import { goTo } from "./tabs.mjs";

const MOST = 12;
const LEAST = 0.01; // of the influence of a node's edges, to be told
let attention = null; // until it is unpacked

export function readAttention(record) {
  attention = record;
}

export const pathsOf = (edge) =>
  attention?.edges[nodes[edge.from].key]?.[nodes[edge.to].key] ?? null;
export const cardOfHead = (name) => attention?.heads[name] ?? null;

export const back = () =>
  el(
    "div",
    { class: "actions" },
    el("button", { type: "button", class: "action", click: closeInner, title: "Esc" }, "← Back"),
  );

const token = (at) => {
  const text = payload.heads.columns[at];
  return text === undefined ? `token ${at}` : `“${text.trim() || seen(text)}”`;
};

/* A part of a score: a node of the graph, to go to, or what it is in words. */
function part(key) {
  const node = byKey.get(key);
  if (!node) return el("span", { class: "part soft" }, key);
  const name = el("bdi", {}, node.name);
  return [
    el("button", { type: "button", class: "part", click: () => goTo(node), title: key }, name),
    el("span", { class: "where" }, key),
  ];
}

export function scoreOf({ query, scored, score, terms }, title) {
  const largest = Math.max(...terms.map(([, , value]) => Math.abs(value)), 1e-30);
  return [
    el("h3", {}, `${title} ${token(scored)} from ${token(query)}`),
    el(
      "p",
      { class: "note" },
      `Its score before the softmax is ${number(score)}, a sum over pairs of what was written at the two tokens. The largest:`,
    ),
    el(
      "table",
      { class: "plain terms" },
      el("thead", {}, el("tr", {}, ["query", "key", "adds"].map((name) => el("th", {}, name)))),
      el(
        "tbody",
        {},
        terms.map(([of, at, value]) =>
          el(
            "tr",
            {},
            el("td", {}, part(of)),
            el("td", {}, part(at)),
            el("td", { class: "number" }, number(value, true), bar(value, largest, sign(value))),
          ),
        ),
      ),
    ),
  ];
}

function queryOf(query) {
  return [
    el("h3", {}, `From ${token(query.query)} (position ${query.query}) it looks at`),
    el(
      "ul",
      { class: "links" },
      query.keys.map(({ key, pattern, influence }) =>
        row({
          title: token(key),
          soft: `position ${key}`,
          text: percent(pattern),
          value: pattern,
          largest: 1,
          group: "supports",
          below: influence ? `influence that runs so: ${number(influence)}` : null,
        }),
      ),
    ),
    scoreOf(query, "Why at"),
  ];
}

export function headCard(name) {
  const card = cardOfHead(name);
  const through = edgesThrough(name, edges, pathsOf).slice(0, MOST);
  const [layer, number_] = name.split(".");
  return [
    back(),
    el("h2", { class: "name" }, `Head ${name}`),
    el(
      "div",
      { class: "facts" },
      el("span", {}, `attention head ${number_} of layer ${layer}`),
      el("span", {}, `${percent(payload.heads.influence[name])} of the influence along all edges`),
    ),
    card === null || !card.queries.length
      ? el("p", { class: "note" }, unseen(card))
      : card.queries.map(queryOf),
    el("h3", {}, `Edges that it carries most (${through.length})`),
    el("ul", { class: "links" }, edgeRows(through)),
  ];
}

const unseen = (card) =>
  card === null
    ? "Where it looks was not kept: it is not among the heads of most influence."
    : "Positions are summed here, so that no token asks and none is looked at.";

function edgeRows(through) {
  const largest = Math.max(...through.map(([, , value]) => Math.abs(value)), 1e-30);
  return through.map(([edge, influence, value]) =>
    row({
      title: `${nodes[edge.from].name} to ${nodes[edge.to].name}`,
      text: number(value, true),
      value,
      largest,
      group: sign(value),
      click: () => openEdge(edge),
      below: `${keyOf(nodes[edge.from])} → ${where(nodes[edge.to])}; influence ${number(influence)}`,
    }),
  );
}

/* Through which heads a node or a box reads, and is read, most: shares of the influence of its
   edges, those within a box left out. */
export function headsOf(item) {
  if (!attention) return null;
  const ids = new Set((item.members ?? [item]).map((node) => node.id));
  const outside = (lists) =>
    [...ids].flatMap((id) => lists[id]).filter(({ from, to }) => !(ids.has(from) && ids.has(to)));
  const parts = [
    ["Reads through", outside(inputs)],
    ["Is read through", outside(outputs)],
  ].map(([title, list]) => [title, carriers(list.map(pathsOf).filter(Boolean))]);
  return parts
    .filter(([, shares]) => shares.length)
    .map(([title, shares]) => [
      el("h3", {}, title),
      el("div", { class: "chips" }, shares.filter(([, share]) => share >= LEAST).slice(0, 5).map(chip)),
    ]);
}

function chip([name, share]) {
  const isHead = /^\d/.test(name);
  const called = isHead ? `head ${name}` : name === "rest" ? "several heads" : name;
  const text = `${called} ${percent(share)}`;
  return isHead
    ? el("button", { type: "button", class: "token", click: () => openHead(name) }, text)
    : el("span", { class: "token" }, text);
}

/* The graph's heads by what runs through them. */
export function headList() {
  if (!payload.heads) return null;
  const { direct, rest, influence, layers_without_heads: without } = payload.heads;
  const shares = Object.entries(influence).slice(0, MOST);
  if (!shares.length) return null;
  const largest = shares[0][1] || 1e-30;
  const some = without.length ? `; layers ${without.join(", ")} have no heads` : "";
  return [
    el("h3", {}, "Heads by influence"),
    el(
      "p",
      { class: "note" },
      `Of the influence that runs along the edges ${percent(direct)} goes through no head, ${percent(rest)} through several${some}.`,
    ),
    el(
      "ul",
      { class: "links" },
      shares.map(([name, share]) =>
        row({
          title: `head ${name}`,
          text: percent(share),
          value: share,
          largest,
          group: "neutral",
          click: () => openHead(name),
        }),
      ),
    ),
  ];
}

/* What is shown in place of a node's card: an edge's, a head's, or null. */
export const inner = () =>
  view.head !== null
    ? headCard(view.head)
    : view.edge !== null && pathsOf(view.edge)
      ? edgeCard(view.edge)
      : null;
