/* Pin, group, name: what keys and buttons do to the state, and the Pinned tab. */

import { $, el } from "../dom.mjs";
import { count, number, percent } from "../numbers.mjs";
import { boxKey, steps } from "./store.mjs";
import { shares } from "./scene.mjs";
import { subgraphScores } from "./scores.mjs";
import {
  byKey, cellOf, changed, edges, groupOf, itemById, itemOf, linesInto, linesOutOf, nodes,
  opened, payload, pinnedIds, select, store, view,
} from "./state.mjs";
import { remember, say } from "./keep.mjs";
import { fit } from "./view.mjs";
import { figures, pill } from "./card.mjs";
import { headsOf } from "./heads.mjs";
import { links } from "./links.mjs";
import { suggestionNote, suggestionRow, suggestions } from "./suggestions.mjs";
import { built } from "./tabs.mjs";

const keysOf = (item) => (item.members ? item.members.map((node) => node.key) : [item.key]);
export const isPinned = (item) => keysOf(item).every((key) => store.state.pinned.includes(key));
/* A feature has one label, at every position. */
const sameFeature = (node) =>
  node.kind === "feature"
    ? nodes.filter((each) => each.key.replace(/@\d+$/, "") === node.key.replace(/@\d+$/, ""))
    : [node];
export const boxTitle = (box) => (box.kind === "cell" ? `${box.site}: ${count(box.members.length, "node")}` : box.name);
const groupName = (box) => box.key.replace(/^group\//, "");

export function togglePin(item) {
  if (!item) return say("Select a node first, then p pins it.");
  const pinned = isPinned(item);
  store.change((pinned ? steps.unpin : steps.pin)(keysOf(item)));
  return say(`${pinned ? "Unpinned" : "Pinned"} ${boxTitle2(item)}. ${carried()}`);
}

export const boxTitle2 = (item) => (item.members ? boxTitle(item) : item.name);

/* What pinned nodes carry, in words. */
function carried() {
  const { effect, weight } = shares(nodes, edges, pinnedIds());
  const into = weight === null ? "" : ` and ${percent(weight)} of the edge weight into the outputs`;
  return effect === null ? "" : `Pinned nodes carry ${percent(effect)} of the total |effect|${into}.`;
}

/* Of a replacement graph: how much is explained where pinned features alone are features. */
function scores() {
  if (!payload.scored || !nodes.some((node) => node.kind === "feature" && pinnedIds().has(node.id)))
    return null;
  const every = new Set(nodes.map((node) => node.id));
  const rows = [
    ["Pinned features", subgraphScores(nodes, edges, pinnedIds())],
    ["All features here", subgraphScores(nodes, edges, every)],
  ].filter(([, found]) => found);
  if (!rows.length) return null;
  return [
    el("h3", {}, "Scores of the pinned part"),
    el(
      "table",
      { class: "plain scores" },
      el("thead", {}, el("tr", {}, ["", "replacement", "completeness"].map((name) => el("th", {}, name)))),
      el(
        "tbody",
        {},
        rows.map(([name, { replacement, completeness }]) =>
          el("tr", {}, el("td", {}, name), [replacement, completeness].map((value) => el("td", { class: "number" }, percent(value)))),
        ),
      ),
    ),
    el("p", { class: "note" }, "Features that are not pinned count as errors of their layer and token; edges that the graph left out do not count."),
  ];
}

/* One question with one line for the answer; null when it is left. */
function ask(title, value, action, note = "") {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-note").textContent = note;
  $("ask-do").textContent = action;
  $("ask-text").value = value;
  dialog.showModal();
  $("ask-text").select();
  return new Promise((done) => {
    const ended = new AbortController();
    const end = (answer) => {
      ended.abort();
      done(answer);
    };
    // At once, before a key that follows: the dialog's own event comes later.
    const submitted = ({ submitter }) =>
      end(submitter?.value === "yes" ? $("ask-text").value.trim() : null);
    dialog.addEventListener("submit", submitted, { signal: ended.signal });
    dialog.addEventListener("close", () => end(null), { signal: ended.signal });
  });
}

const loose = () => store.state.pinned.filter((key) => !groupOf(byKey.get(key) ?? { key }));

export async function groupPinned() {
  const keys = loose();
  if (!keys.length) return say("Pin the nodes that belong together first (p), then g groups them.");
  const first = byKey.get(keys[0]);
  const note = `${count(keys.length, "pinned node")} in no group yet, drawn as one box`;
  const name = await ask("Name of the group", first?.name ?? "", "Group", note);
  if (!name) return null;
  store.change(steps.group(name, keys));
  return select(itemOf(boxKey(name)), { keep: "replace" });
}

async function renameGroup(name) {
  const other = await ask("Name of the group", name, "Rename");
  if (!other || other === name) return;
  if (Object.hasOwn(store.state.groups, other)) {
    say(`There is a group called ${other}: choose another name.`);
    return;
  }
  view.selected = null;
  store.change(steps.rename(name, other));
  select(itemOf(boxKey(other)), { keep: "replace" });
}

export async function editLabel(item) {
  if (!item || item.kind === "cell") return;
  if (item.members) {
    await renameGroup(groupName(item));
    return;
  }
  const all = sameFeature(item);
  const more = all.length > 1 ? `, at all ${all.length} positions` : "";
  const text = await ask(`Label of ${item.key.replace(/@\d+$/, "")}`, item.name, "Keep", `empty: “${item.label}” again${more}`);
  if (text === null) return;
  store.change(steps.label(all.map((node) => node.key), text === item.label ? "" : text));
}

export function openBox(box) {
  if (box.kind === "cell") {
    box.members.forEach((node) => opened.add(cellOf(node)));
    select(box.strongest);
  } else {
    view.selected = null;
    store.change(steps.fold(groupName(box)));
    select(box.strongest, { keep: "replace" });
  }
}

function closeGroup(name) {
  store.change(steps.fold(name));
  select(itemOf(boxKey(name)) ?? view.selected, { keep: "replace" });
}

export const action = (text, click, more = {}) =>
  el("button", { type: "button", class: "action", click, ...more }, text);

/* Under the name on a card: what can be done with a node or box. */
export function actions(item) {
  const name = item.members ? (item.kind === "group" ? groupName(item) : null) : groupOf(item);
  const folded = name && store.state.collapsed.includes(name);
  return el(
    "div",
    { class: "actions" },
    action(isPinned(item) ? "Unpin" : "Pin", () => togglePin(item), { title: "p", "aria-pressed": String(isPinned(item)) }),
    item.kind !== "cell" && action(item.members ? "Rename" : "Edit label", () => editLabel(item), { title: "e" }),
    item.members && action("Open", () => openBox(item)),
    name && !item.members && action(folded ? `Open ${name}` : `Close ${name}`, () => closeGroup(name)),
    name && action("Ungroup", () => ungroup(name)),
  );
}

function ungroup(name) {
  if (view.selected?.members) view.selected = null;
  store.change(steps.ungroup(name));
}

/* A note is kept when the field is left. */
export function noteField(node) {
  return el(
    "label",
    { class: "note-field" },
    el("span", {}, "Note"),
    el(
      "textarea",
      {
        rows: 2,
        placeholder: "What this node seems to do",
        change: (event) => store.change(steps.note(node.key, event.target.value.trim())),
      },
      store.state.notes[node.key] ?? "",
    ),
  );
}

/* The card of a box: its members, and lines in and out as on every card. */
export function boxCard(box) {
  const rows = [...box.members]
    .sort((a, b) => Math.abs(b.support ?? 0) - Math.abs(a.support ?? 0))
    .map((node) => ({ node, value: node.support, group: node.group }));
  return [
    el("h2", { class: "name" }, el("bdi", {}, boxTitle(box))),
    el("div", { class: "facts" }, el("span", {}, count(box.members.length, "node")), pill(box.group)),
    actions(box),
    figures(box),
    el("p", { class: "note" }, "Supports are sums over the members; edges are summed with their signs."),
    el("h3", {}, `Members (${rows.length})`),
    links(rows),
    lineList("Outputs", linesOutOf(box), "to"),
    lineList("Inputs", linesInto(box), "from"),
    headsOf(box),
  ];
}

function lineList(title, lines, end) {
  const rows = lines.slice(0, 30).map((line) => ({
    node: itemById.get(line[end]),
    value: line.support,
    group: line.group,
  }));
  return [el("h3", {}, `${title} (${lines.length})`), rows.length ? links(rows) : el("p", { class: "soft" }, "none")];
}

function groupRow([name, keys]) {
  const folded = store.state.collapsed.includes(name);
  const members = keys.map((key) => byKey.get(key)).filter(Boolean);
  const sum = members.reduce((total, node) => total + (node.support ?? 0), 0);
  return el(
    "li",
    {},
    el("div", { class: "row" }, el("bdi", { class: "strong" }, name), el("span", { class: "soft" }, `${count(members.length, "node")}, support ${number(sum, true)}`)),
    el(
      "div",
      { class: "actions" },
      action(folded ? "Open" : "Close", () => closeGroup(name), { "aria-label": `${folded ? "Open" : "Close"} ${name}` }),
      action("Rename", () => renameGroup(name), { "aria-label": `Rename ${name}` }),
      action("Ungroup", () => ungroup(name), { "aria-label": `Ungroup ${name}` }),
    ),
  );
}

function undoRow() {
  return el(
    "div",
    { class: "actions" },
    action("Undo", () => store.undo(), { disabled: !store.canUndo, title: "Ctrl+Z" }),
    action("Redo", () => store.redo(), { disabled: !store.canRedo, title: "Ctrl+Shift+Z" }),
    action("Group pinned", groupPinned, { disabled: !loose().length, title: "g" }),
    action("Pinned alone", toggleAlone, {
      ...{ disabled: !store.state.pinned.length, title: "o" },
      "aria-pressed": String(view.pinnedOnly),
    }),
  );
}

/* The pinned nodes as a view of their own, with the weights on the edges; they can be dragged. */
export function toggleAlone() {
  if (!view.pinnedOnly && !store.state.pinned.length) {
    say("Pin nodes first (p): this view holds the pinned ones.");
    return;
  }
  view.pinnedOnly = !view.pinnedOnly;
  changed();
  fit();
  remember();
}

export function pinsPanel() {
  const { pinned, groups: named } = store.state;
  const rows = pinned
    .map((key) => byKey.get(key))
    .filter(Boolean)
    .map((node) => ({ node, value: node.support, group: node.group }));
  const found = suggestions();
  return [
    el("h2", { class: "unseen" }, "Pinned nodes and groups"),
    undoRow(),
    el("p", { class: "score" }, rows.length ? carried() : "Nothing is pinned. Select a node and press p, or shift-click it."),
    scores(),
    Object.keys(named).length > 0 && [el("h3", {}, "Groups"), el("ul", { class: "cards" }, Object.entries(named).map(groupRow))],
    rows.length > 0 && [el("h3", {}, `Pinned (${rows.length})`), links(rows)],
    found.length > 0 && [
      el("h3", {}, "Suggested groups"),
      el("p", { class: "note" }, suggestionNote(found)),
      el("ul", { class: "cards" }, found.map(suggestionRow)),
    ],
  ];
}

export function drawPins() {
  if (!$("panel-pinned") || $("panel-pinned").hidden) {
    built.delete("pinned");
    return;
  }
  const focus = document.activeElement?.closest?.("#panel-pinned") && document.activeElement.getAttribute("title");
  $("panel-pinned").replaceChildren(...pinsPanel().flat(4).filter(Boolean));
  if (focus) $("panel-pinned").querySelector(`[title="${focus}"]`)?.focus();
}
