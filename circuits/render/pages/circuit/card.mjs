/* The card of the selected node, or what stands out when none is selected. */

import { $, el, seen, unpack } from "../dom.mjs";
import { count, number, percent } from "../numbers.mjs";
import { histogram } from "../histogram.mjs";
import { groups, inputs, nodes, outputs, payload, scene, store, view } from "./state.mjs";
import { actions, boxCard, noteField } from "./pins.mjs";
import { headList, headsOf, inner, readAttention } from "./heads.mjs";
import { keyOf, links, neighbourList } from "./links.mjs";
import { readCards } from "./search.mjs";

export let cards = null; // until they are unpacked

/* Cards come compressed and are unpacked after the picture stands. */
export async function unpackCards() {
  cards = await unpack("data-cards");
  readAttention(await unpack("data-attention"));
  readCards();
  drawCard();
}

const show = (field, value) => number(value, field.signed);
export const shownOr = (field, value) =>
  value === null || value === undefined ? field.missing : show(field, value);
export const featureOf = (node) => node.key.replace(/@\d+$/, "");

export function pill(group) {
  const known = groups.get(group);
  return known
    ? el(
        "span",
        { class: `pill${known.dashed ? " dashed" : ""}`, style: { color: `var(--${group})` } },
        known.label,
      )
    : null;
}

export function figures(node) {
  const total = payload.fields.map((field) => {
    const value = node[field.key];
    const absent = value === null || value === undefined;
    return el(
      "div",
      {},
      el("dt", {}, field.label),
      el("dd", { class: absent ? "absent" : "" }, absent ? field.missing : show(field, value)),
    );
  });
  return el("dl", { class: "figures" }, total);
}

function tokenChips(title, pairs) {
  if (!pairs?.length) return null;
  return el(
    "div",
    {},
    el("h3", {}, title),
    el(
      "div",
      { class: "chips" },
      pairs.map(([token, score]) =>
        el(
          "span",
          { class: "token", title: `${token} ${number(score, true)}`, dir: "auto" },
          seen(token),
        ),
      ),
    ),
  );
}

const SPECIAL = /^<\|.*\|>$|^<[a-z_/]+>$/;

function example({ tokens, values, cut }, largest) {
  const spans = tokens.map((token, index) => {
    const share = Math.max(0, Math.min(1, values[index] / largest));
    return el(
      "span",
      {
        title: `${token.trim() || token}: ${number(values[index])}`,
        class: SPECIAL.test(token) ? "special" : null,
        style: share > 0.02 ? { background: `rgb(var(--mark) / calc(0.12 + ${share} * var(--deep)))` } : {},
      },
      token,
    );
  });
  return el("p", { class: "example", dir: "auto" }, cut[0] && "…", spans, cut[1] && "…");
}

function gauge(node, card) {
  if (card.density === null && !card.max_activation) return null;
  const share =
    (node.activation ?? null) !== null && card.max_activation
      ? Math.min(1, Math.max(0, node.activation / card.max_activation))
      : null;
  const words = [
    card.density !== null &&
      card.density !== undefined &&
      `active on ${percent(card.density)} of ${card.tokens_seen ? count(card.tokens_seen, "token") : "tokens"}`,
    share !== null &&
      `here at ${percent(share)} of its largest activation, ${number(card.max_activation)}`,
  ];
  return el(
    "div",
    {},
    el("h3", {}, "Activation"),
    share !== null &&
      el("div", { class: "gauge" }, el("i", { style: { width: `${100 * share}%` } })),
    histogram(card.histogram, node.activation),
    el("div", { class: "soft" }, words.filter(Boolean).join("; ")),
  );
}

/* The page on which all is said that is known of the feature. */
function featureLink(node) {
  const { features = {}, suite = null } = payload.links ?? {};
  if (node.kind !== "feature") return null;
  const name = featureOf(node);
  const href = features[name] ?? (suite && `${suite}#feature=${encodeURIComponent(name)}`);
  return href ? el("a", { href }, "page of this feature") : null;
}

function featureCard(node) {
  const card = node.kind === "feature" && cards?.[featureOf(node)];
  if (!card) return [];
  const largest =
    Math.max(card.max_activation ?? 0, ...card.examples.flatMap((e) => e.values)) || 1;
  return [
    gauge(node, card),
    el(
      "div",
      { class: "two" },
      tokenChips("Promotes", card.promoted),
      tokenChips("Suppresses", card.suppressed),
    ),
    card.examples.length ? el("h3", {}, "Top examples") : null,
    card.examples.map((each) => example(each, largest)),
  ];
}

function nodeCard(node) {
  const column = payload.columns[node.column];
  const at = /@(\d+)$/.exec(node.key);
  return [
    el("h2", { class: "name" }, el("bdi", {}, node.name)),
    el(
      "div",
      { class: "facts" },
      el("span", { class: "mono" }, keyOf(node)),
      el("span", {}, node.kind),
      at &&
        el(
          "span",
          {},
          node.where ? "" : `position ${at[1]} `,
          el("span", { class: "token" }, node.token ?? column.token),
        ),
      pill(node.group),
      node.edited && el("span", {}, `edited: ${node.edited}`),
      node.label_by && el("span", {}, `called so by ${node.label_by}`),
      featureLink(node),
    ),
    actions(node),
    figures(node),
    noteField(node),
    neighbourList("Outputs", outputs[node.id], "to"),
    neighbourList("Inputs", inputs[node.id], "from"),
    headsOf(node),
    featureCard(node),
  ];
}

function overview() {
  const ranked = (name) =>
    nodes
      .filter((node) => node.group === name)
      .slice(0, 12)
      .map((node) => ({ node, value: node.support, group: name }));
  const parts = payload.groups
    .map((group) => [group, ranked(group.name)])
    .filter(([, r]) => r.length);
  return [
    el("h2", { class: "unseen" }, "Strongest nodes"),
    el(
      "p",
      { class: "note" },
      "Select a node to see what drives it and what it drives.",
    ),
    parts.map(([group, rows]) => [el("h3", {}, `Strongest: ${group.label}`), links(rows)]),
    headList(),
  ];
}

/* What a card is made of: the same again is left as it is, under the pointer of whoever clicks. */
let cardOf = "";

export function drawCard() {
  const panel = $("panel-node");
  const { notes, places, ...marks } = store.state;
  const item = view.selected;
  const shown = [item?.key, view.edge?.id, view.head].join("\n");
  const of = JSON.stringify([shown, marks, cards !== null, item?.members && scene.lines.length]);
  const note = panel.querySelector(".note-field textarea");
  if (of === cardOf) {
    if (note && note !== document.activeElement) note.value = notes[item.key] ?? "";
    return;
  }
  const other = JSON.parse(cardOf || "[]")[0] !== shown;
  const focus = panel.contains(document.activeElement) && document.activeElement.title;
  const top = panel.scrollTop;
  cardOf = of;
  panel.replaceChildren(
    ...(inner() ?? (item?.members ? boxCard(item) : item ? nodeCard(item) : overview()))
      .flat(3)
      .filter(Boolean),
  );
  panel.scrollTop = other ? 0 : top;
  if (focus && !other) panel.querySelector(`[title="${CSS.escape(focus)}"]`)?.focus();
}
