/* The page of a search: the ranked features, the texts coloured by one of them, notes. */

import { $, el, unpack } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { drawRanked } from "./table.mjs";
import { largestOf, strip, topsOf } from "./strip.mjs";

const view = { record: null, chosen: null, text: null, run: null };
const notes = new Map();

/* Storage is closed to pages in some frames. */
function storage(use) {
  try {
    return use(localStorage);
  } catch {
    return null;
  }
}

const placeOfNotes = () => `search ${view.record.page}`;

function recall() {
  const kept = storage((place) => place.getItem(placeOfNotes()));
  for (const [feature, text] of Object.entries(JSON.parse(kept ?? "{}"))) notes.set(feature, text);
}

function note(feature, text) {
  if (text.trim()) notes.set(feature, text);
  else notes.delete(feature);
  storage((place) => place.setItem(placeOfNotes(), JSON.stringify(Object.fromEntries(notes))));
  $("tally").textContent = count(notes.size, "note");
  drawList();
}

/* A file that `circuits labels` reads. */
function save() {
  const said = Object.fromEntries([...notes].map(([feature, text]) => [feature, { text: text.trim() }]));
  const link = el("a", {
    href: URL.createObjectURL(new Blob([`${JSON.stringify(said, null, 1)}\n`], { type: "application/json" })),
    download: "notes.json",
  });
  link.click();
  URL.revokeObjectURL(link.href);
}

const drawList = () =>
  drawRanked({
    record: view.record,
    chosen: view.chosen,
    choose: tap,
    noted: (feature) => notes.has(feature),
  });

function aboutChosen() {
  const { record, chosen } = view;
  if (chosen === null) return el("p", { class: "note" }, "No feature was found.");
  const page = record.pages[chosen];
  const field = el("textarea", {
    id: "note",
    rows: 2,
    "aria-label": `Note on ${chosen}`,
    placeholder: "What it seems to be",
    input: (event) => note(chosen, event.target.value),
  });
  field.value = notes.get(chosen) ?? "";
  return el(
    "div",
    { id: "chosen" },
    el("button", { type: "button", class: "back", click: backToList }, "↑ Back to the list"),
    el("h2", { class: "name" }, el("bdi", {}, record.labels[chosen] ?? "–")),
    el(
      "div",
      { class: "facts" },
      el("span", { class: "mono" }, chosen),
      page && el("a", { href: page }, "its page"),
    ),
    field,
    el(
      "p",
      { class: "bar" },
      el("button", { type: "button", click: save }, "Save notes"),
      el("output", { id: "tally", "aria-live": "polite" }, count(notes.size, "note")),
      el("span", { class: "soft" }, "then: circuits labels DICTIONARIES notes.json"),
    ),
  );
}

function strips() {
  const { texts } = view.record;
  const largest = largestOf(texts, view.chosen);
  const kinds = [...new Set(texts.map((text) => text.kind))];
  return kinds.map((kind) => {
    const own = texts.map((text, at) => [text, at]).filter(([text]) => text.kind === kind);
    return el(
      "section",
      { "aria-label": kind ? `${kind} texts` : "Text" },
      kind && el("h3", {}, `${kind} texts`, el("span", { class: "soft" }, `, ${own.length} shown`)),
      own.map(([text, at]) => [
        strip({
          text,
          number: at,
          feature: view.chosen,
          largest,
          chosen: view.text === at ? view.run : null,
          pick,
        }),
        view.text === at &&
          topsOf({
            text,
            run: text.runs[view.run],
            labels: view.record.labels,
            chosen: view.chosen,
            choose: tap,
          }),
      ]),
    );
  });
}

function drawTexts({ focus = null } = {}) {
  const { texts } = view.record;
  const largest = largestOf(texts, view.chosen);
  $("texts").replaceChildren(
    aboutChosen(),
    ...(texts.length
      ? [
          el(
            "p",
            { class: "note" },
            largest
              ? "The deeper a token's colour, the more active the feature is there, " +
                `${number(largest)} at most. Choose a token to see all features that are on at it.`
              : "The feature is on at no token shown. Choose a token to see those that are.",
          ),
          ...strips(),
        ]
      : []),
  );
  if (focus) $(focus)?.focus({ preventScroll: true });
}

const rowOf = (feature) => document.getElementById(`row-${feature}`);

/* Chosen by a tap: where the texts lie below the list they come into view, and with them the focus;
   beside it the focus stays in the part that was tapped. */
function tap(feature) {
  const below = matchMedia("(max-width: 900px)").matches;
  const inList = $("ranked").contains(document.activeElement);
  choose(feature);
  if (below) $("texts").scrollIntoView({ block: "start" });
  const button = !below && inList && rowOf(feature)?.querySelector("button");
  (button || $("texts")).focus({ preventScroll: true });
}

function backToList() {
  const row = rowOf(view.chosen) ?? $("ranked");
  row.scrollIntoView({ block: "center" });
  (row.querySelector("button") ?? row).focus({ preventScroll: true });
}

function choose(feature) {
  view.chosen = feature;
  drawList();
  drawTexts();
  $("told").textContent = `${feature} chosen`;
  const hash = `#feature=${encodeURIComponent(feature)}`;
  if (location.hash !== hash && location.protocol !== "about:")
    history.replaceState(null, "", hash);
}

function pick(text, run) {
  const again = view.text === text && view.run === run;
  Object.assign(view, again ? { text: null, run: null } : { text, run });
  drawTexts({ focus: `text-${text}` });
}

function step(by) {
  const names = view.record.found.map((row) => row.feature);
  const at = names.indexOf(view.chosen);
  if (!names.length) return;
  choose(names[Math.max(0, Math.min(names.length - 1, at + by))]);
  rowOf(view.chosen)?.scrollIntoView({ block: "nearest" });
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea")) return;
  const by = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (by) {
    step(by);
    event.preventDefault();
  } else if (event.key === "n" && $("note")) {
    $("note").focus();
    event.preventDefault();
  } else if (event.key === "Escape" && view.text !== null) {
    Object.assign(view, { text: null, run: null });
    drawTexts();
  }
}

function fromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("feature");
  const known = (name) => name !== null && Object.hasOwn(view.record.labels, name);
  view.chosen = known(asked) ? asked : (view.record.found[0]?.feature ?? null);
  drawList();
  drawTexts();
}

async function start() {
  view.record = await unpack("data-record");
  recall();
  document.addEventListener("keydown", keys);
  window.addEventListener("hashchange", fromAddress);
  fromAddress();
}

/* `suite` is the handle that tests and notebooks use. */
window.suite = { ready: start(), chosen: () => view.chosen };
