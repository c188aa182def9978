/* Every drawn node as a table that sorts: the same content for those who cannot use a canvas. */

import { $, el } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { groups, nodes, payload, scene, store, view } from "./state.mjs";
import { keyOf } from "./links.mjs";
import { built, goTo, openTab } from "./tabs.mjs";

const TABLE_COLUMNS = [{ label: "node", key: "name", text: true }, ...payload.fields];
const sorting = { column: null, up: false };

function compare(column) {
  return (a, b) => {
    const [left, right] = [a[column.key], b[column.key]];
    if (left === null || right === null) return (left === null) - (right === null);
    const order = column.text ? String(left).localeCompare(String(right)) : left - right;
    return sorting.up ? order : -order;
  };
}

/* Strongest first, or most changed first where the page compares two graphs. */
function atFirst() {
  const key = payload.order;
  return key ? [...nodes].sort((a, b) => Math.abs(b[key]) - Math.abs(a[key])) : nodes;
}

function sortBy(column) {
  sorting.up = sorting.column === column ? !sorting.up : Boolean(column.text);
  sorting.column = column;
  tablePanel();
}

function tableRow(node) {
  const cells = TABLE_COLUMNS.slice(1).map((column) => {
    const value = node[column.key];
    const absent = value === null || value === undefined;
    return el(
      "td",
      { class: column.text ? "mono" : `number${absent ? " soft" : ""}` },
      absent ? "–" : column.text ? value : number(value, column.signed),
    );
  });
  return el(
    "tr",
    { "data-id": node.id, class: node === view.selected ? "lit" : null },
    el(
      "td",
      {},
      el(
        "button",
        { type: "button", click: () => goTo(node) },
        el("bdi", {}, node.name),
      ),
      el(
        "div",
        { class: "soft" },
        el("span", { class: "mono" }, keyOf(node)),
        payload.order && el("div", {}, groups.get(node.group).label),
      ),
    ),
    cells,
  );
}

export function tablePanel() {
  const all = sorting.column ? [...nodes].sort(compare(sorting.column)) : atFirst();
  const rows = all.filter((node) => scene.shown.has(node.id));
  const hidden = all.length - rows.length;
  const state = (column) =>
    column !== sorting.column ? "none" : sorting.up ? "ascending" : "descending";
  const arrow = { none: "", ascending: " ↑", descending: " ↓" };
  const head = TABLE_COLUMNS.map((column) =>
    el(
      "th",
      { scope: "col", "aria-sort": state(column), class: column.text ? null : "right" },
      el(
        "button",
        { type: "button", click: () => sortBy(column) },
        column.label + arrow[state(column)],
      ),
    ),
  );
  $("panel-table").replaceChildren(
    ...(hidden ? [el("p", { class: "note" }, `${count(hidden, "node")} hidden by the filters`)] : []),
    el(
      "table",
      { class: "plain", "aria-label": "Nodes" },
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, rows.map(tableRow)),
    ),
  );
}

/* The table shows what the filters let through, and is drawn again when that changes. */
let listed = null;

export function followFilters() {
  const shown = [...scene.shown].join();
  const names = JSON.stringify(store.state.labels);
  if (listed === shown + names) return;
  listed = shown + names;
  for (const name of ["table", "check"]) {
    built.delete(name);
    if ($(`panel-${name}`)?.hidden === false) openTab(name);
  }
}

export function markRow() {
  for (const row of document.querySelectorAll("#panel-table tr.lit")) row.classList.remove("lit");
  if (view.selected) {
    document.querySelector(`#panel-table tr[data-id="${view.selected.id}"]`)?.classList.add("lit");
  }
}
