/* The keyboard: arrows walk, letters act; what an arrow went to is read out. */

import { $ } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { goingFrom } from "./find.mjs";
import {
  closeInner, drawnAs, groups, inputs, itemById, linesInto, linesOutOf, openEdge, scene, select,
  store, view,
} from "./state.mjs";
import { say } from "./keep.mjs";
import { canvas } from "./network.mjs";
import { pathsOf } from "./heads.mjs";
import { fit } from "./view.mjs";
import { where } from "./links.mjs";
import {
  boxTitle2, editLabel, groupPinned, isPinned, openBox, toggleAlone, togglePin,
} from "./pins.mjs";

/* Where a graph is a part of a longer page, arrow keys outside of it scroll that page. */
const alone = document.querySelector("main.circuit") !== null;

/* Where an arrow key goes from what is selected. */
function step(key) {
  const item = drawnAs(view.selected);
  if (!item || !itemById.has(item.id)) return scene.items[0];
  return itemById.get(goingFrom(item, key, scene));
}

/* What a person who does not see the canvas hears of the node that an arrow key went to. */
function announce() {
  const item = view.selected;
  if (!item) return;
  const drawn = drawnAs(item);
  const group = groups.get(item.group)?.label ?? "";
  const value = (item.support ?? null) === null ? "" : `, ${group} ${number(item.support, true)}`;
  const ends = [linesInto(drawn).length, linesOutOf(drawn).length];
  const name = boxTitle2(item);
  $("spoken").textContent =
    `${name}${item.members ? "" : `, ${where(item)}`}${value}; ` +
    `${count(ends[0], "input")}, ${count(ends[1], "output")}${isPinned(item) ? "; pinned" : ""}`;
}

export function toggleKeys() {
  if ($("keys").open) $("keys").close();
  else $("keys").showModal();
}

/* The card of the selected node's strongest input, or what stands open instead, closed. */
function howStrongest() {
  const edge = inputs[view.selected?.id]?.find(pathsOf);
  if (view.edge || view.head) closeInner();
  else if (edge) openEdge(edge);
  else say("Select a node whose inputs are known by their heads, then i shows the strongest.");
}

const LETTERS = {
  p: () => togglePin(view.selected),
  g: () => groupPinned(),
  e: () => editLabel(view.selected),
  o: () => toggleAlone(),
  i: () => howStrongest(),
  Enter: () => view.selected?.members && openBox(view.selected),
};

export function keys(event) {
  const typing = event.target.matches("input[type=search], input[type=range], input[type=text], textarea");
  const here = canvas.contains(event.target) || (alone && !event.target.closest("dialog"));
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing && here) {
    const done = event.shiftKey ? store.redo() : store.undo();
    if (!done) say(`Nothing to ${event.shiftKey ? "redo" : "undo"}.`);
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.key === "Enter" && !canvas.contains(event.target);
  if (LETTERS[event.key] && !typing && here && !onButton && !$("keys").open) {
    event.preventDefault();
    LETTERS[event.key]();
  } else if (event.key === "?" && !typing) toggleKeys();
  else if (event.key === "/" && !typing) {
    $("search").focus();
    event.preventDefault();
  } else if (event.key === "Escape" && !typing && !document.querySelector("dialog[open]")) {
    if (view.edge || view.head) closeInner();
    else select(null);
  }
  else if (event.key === "f" && !typing) fit();
  else if (
    event.key.startsWith("Arrow") &&
    (canvas.contains(event.target) || (alone && event.target === document.body))
  ) {
    const next = step(event.key);
    // A key that is held down makes one entry in the history, not fifty.
    if (next) select(next, { focus: true, keep: event.repeat ? "replace" : "push" });
    announce();
    event.preventDefault();
  }
}
