/* Groups that are suggested: what they are, what they do under ablation; accepted or dismissed. */

import { el } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { steps } from "./store.mjs";
import { scored } from "./scene.mjs";
import { SIGNED, byKey, payload, store } from "./state.mjs";
import { links } from "./links.mjs";
import { action } from "./pins.mjs";

const suggestionId = (found) => found.members.join(" ");

const suggested = scored(payload.suggested ?? [], payload.verification?.groups);

export function suggestions() {
  const { dismissed, groups: named } = store.state;
  const taken = new Set(Object.values(named).flat());
  return suggested.filter(
    (found) => !dismissed.includes(suggestionId(found)) && !found.members.some((key) => taken.has(key)),
  );
}

function accept(found) {
  let name = found.name;
  for (let n = 2; Object.hasOwn(store.state.groups, name); n += 1) name = `${found.name} ${n}`;
  store.change(steps.group(name, found.members));
}

/* What a group does when all of it is ablated at once, beside the sum of its members alone. */
function scoreText({ support, interval, sum }) {
  const ends = interval ? ` (95 % ${number(interval[0], true)} to ${number(interval[1], true)})` : "";
  return `Ablated together: support ${number(support, true)}${ends}; one by one, in sum: ${number(sum, true)}`;
}

/* Whether nodes of the graph are ablated, which those of two graphs over each other are not. */
const ABLATES = payload.ablates === true;

export function suggestionNote(found) {
  const alike = "Features with like edges or the same promoted tokens (Louvain communities).";
  const open = found.filter((group) => group.score === null).length;
  if (!open || !ABLATES) return alike;
  const which = open === found.length ? "They were" : `${count(open, "group")} ${open === 1 ? "was" : "were"}`;
  return `${alike} ${which} not ablated yet: circuits verify measures what each does.`;
}

export function suggestionRow(found) {
  const members = found.members.map((key) => byKey.get(key)).filter(Boolean);
  const sum = number(members.reduce((total, node) => total + (node.support ?? 0), 0), true);
  return el(
    "li",
    {},
    el("div", { class: "row" }, el("bdi", { class: "strong" }, found.name), el("span", { class: "soft" }, `${count(members.length, "node")}${found.score || !SIGNED ? "" : `, estimates sum to ${sum}`}`)),
    el("div", { class: "soft" }, found.why),
    (found.score || ABLATES) &&
      el("div", { class: "measured" }, found.score ? scoreText(found.score) : "not ablated yet"),
    el("details", { class: "members" }, el("summary", {}, "Members"), links(members.map((node) => ({ node, value: node.support, group: node.group })))),
    el(
      "div",
      { class: "actions" },
      action("Accept", () => accept(found), { "aria-label": `Accept the group ${found.name}` }),
      action("Dismiss", () => store.change(steps.dismiss(suggestionId(found))), { "aria-label": `Dismiss the group ${found.name}` }),
    ),
  );
}
