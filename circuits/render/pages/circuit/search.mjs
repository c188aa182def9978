/* The search field and the list under it. */

import { $, el } from "../dom.mjs";
import { around, matching, textOf } from "./find.mjs";
import { nodes, select } from "./state.mjs";
import { canvas } from "./network.mjs";
import { cards, featureOf } from "./card.mjs";
import { where } from "./links.mjs";
import { openTab } from "./tabs.mjs";

/* What a search looks through: names, tokens and keys, and once cards are there what is promoted. */
let haystack = [];

export function readCards() {
  haystack = nodes.map((node) => textOf(node, cards?.[featureOf(node)]?.promoted));
}

const FOUND_AT_MOST = 40;
let found = [];
let cursor = 0;

const search = (text) => matching(haystack, text).map((i) => nodes[i]);

export function drawFound() {
  const text = $("search").value;
  found = search(text);
  const box = $("found");
  box.hidden = !text.trim();
  $("search").setAttribute("aria-expanded", !box.hidden);
  const rows = found.slice(0, FOUND_AT_MOST).map((node, index) =>
    el(
      "li",
      {
        role: "option",
        id: `found-${index}`,
        "aria-selected": index === cursor,
        pointerdown: (event) => {
          event.preventDefault();
          choose(node);
        },
      },
      el("bdi", {}, node.name),
      " ",
      el("span", { class: "soft mono" }, where(node)),
    ),
  );
  const rest = found.length - rows.length;
  box.replaceChildren(
    ...rows,
    ...(found.length ? [] : [el("li", { class: "empty" }, "No node matches.")]),
    ...(rest > 0 ? [el("li", { class: "empty" }, `and ${rest} more`)] : []),
  );
  $("search").setAttribute("aria-activedescendant", found.length ? `found-${cursor}` : "");
  $(`found-${cursor}`)?.scrollIntoView({ block: "nearest" });
}

export function searchAnew() {
  cursor = 0;
  drawFound();
}

function choose(node) {
  closeSearch();
  openTab("node");
  select(node, { focus: true });
  canvas.focus();
}

function closeSearch() {
  $("search").value = "";
  $("found").hidden = true;
  $("search").setAttribute("aria-expanded", false);
}

export function searchKeys(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && found.length) {
    cursor = around(cursor + step, Math.min(found.length, FOUND_AT_MOST));
    drawFound();
    event.preventDefault();
  } else if (event.key === "Enter" && found.length) choose(found[cursor]);
  else if (event.key === "Escape") {
    closeSearch();
    canvas.focus();
  }
}
