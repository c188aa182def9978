/* Wiring: tabs, search, sliders, keys, and the handle that tests and notebooks use. */

const TABS = [
  ["node", "Node", null],
  ["pinned", "Pinned", pinsPanel],
  ["check", "Check", payload.verification && checkPanel],
  ["ablations", "Ablations", payload.ablations && ablationsPanel],
  ["table", "Table", tablePanel],
].filter(([name, , build]) => name === "node" || build);
const built = new Set(["node"]);
/* Where a graph is a part of a longer page, arrow keys outside of it scroll that page. */
const alone = document.querySelector("main.circuit") !== null;

function makeTabs() {
  for (const [name, title] of TABS) {
    $("tabs").append(
      el(
        "button",
        {
          id: `tab-${name}`,
          type: "button",
          role: "tab",
          "aria-controls": `panel-${name}`,
          click: () => openTab(name),
        },
        title,
      ),
    );
    $("panels").append(
      el("div", {
        id: `panel-${name}`,
        role: "tabpanel",
        tabindex: "0",
        "aria-labelledby": `tab-${name}`,
      }),
    );
  }
  $("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex(([name]) => event.target.id === `tab-${name}`);
    const next = TABS[(at + step + TABS.length) % TABS.length][0];
    openTab(next);
    $(`tab-${next}`).focus();
    event.stopPropagation();
  });
}

function openTab(name) {
  for (const [each, , build] of TABS) {
    const open = each === name;
    $(`tab-${each}`).setAttribute("aria-selected", open);
    $(`tab-${each}`).tabIndex = open ? 0 : -1;
    $(`panel-${each}`).hidden = !open;
    if (open && !built.has(each)) {
      built.add(each);
      const content = build();
      if (content) $(`panel-${each}`).replaceChildren(...content.flat(4).filter(Boolean));
    }
  }
}

/* Show a node and its card. */
function goTo(node) {
  openTab("node");
  select(node, { focus: true });
}

/* What a search looks through: names, tokens and keys, and once cards are there what is promoted. */
let haystack = [];

function readCards() {
  const promoted = (node) =>
    (cards?.[node.key.replace(/@\d+$/, "")]?.promoted ?? []).map(([token]) => token).join(" ");
  haystack = nodes.map((node) =>
    `${node.name} ${node.label} ${node.token ?? ""} ${node.key} ${promoted(node)}`.toLowerCase(),
  );
}

const FOUND_AT_MOST = 40;
let found = [];
let cursor = 0;

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length
    ? nodes.filter((_, i) => words.every((word) => haystack[i].includes(word)))
    : [];
}

function drawFound() {
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

function searchKeys(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && found.length) {
    cursor =
      (cursor + step + Math.min(found.length, FOUND_AT_MOST)) %
      Math.min(found.length, FOUND_AT_MOST);
    drawFound();
    event.preventDefault();
  } else if (event.key === "Enter" && found.length) choose(found[cursor]);
  else if (event.key === "Escape") {
    closeSearch();
    canvas.focus();
  }
}

/* Up and down follow the strongest visible edge, left and right the band. */
function step(key) {
  const item = drawnAs(view.selected);
  if (!item || !itemById.has(item.id)) return scene.items[0];
  if (key === "ArrowUp") return itemById.get(linesOutOf(item)[0]?.to);
  if (key === "ArrowDown") return itemById.get(linesInto(item)[0]?.from);
  const band = scene.items
    .filter((each) => each.site === item.site)
    .sort((a, b) => a.x - b.x || a.y - b.y);
  return band[band.indexOf(item) + (key === "ArrowRight" ? 1 : -1)];
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

function toggleKeys() {
  if ($("keys").open) $("keys").close();
  else $("keys").showModal();
}

const LETTERS = {
  p: () => togglePin(view.selected),
  g: () => groupPinned(),
  e: () => editLabel(view.selected),
  o: () => toggleAlone(),
  Enter: () => view.selected?.members && openBox(view.selected),
};

function keys(event) {
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
  } else if (event.key === "Escape" && !typing && !document.querySelector("dialog[open]")) select(null);
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

/* The picture is fitted once more when the canvas has its size; then all is ready. */
let settle;
const settled = new Promise((done) => {
  settle = done;
});

function wire() {
  $("search").addEventListener("input", () => {
    cursor = 0;
    drawFound();
  });
  $("search").addEventListener("keydown", searchKeys);
  $("search").addEventListener("blur", () => {
    $("found").hidden = true;
  });
  $("search").addEventListener("focus", () => {
    if ($("search").value) drawFound();
  });
  for (const name of ["nodes", "edges"]) {
    const slider = $(`${name.slice(0, -1)}-count`);
    slider.max = name === "nodes" ? nodes.length : edges.length;
    slider.value = view[name];
    slider.addEventListener("input", () => {
      view[name] = Number(slider.value);
      changed();
    });
    slider.addEventListener("change", () => {
      refilter();
      remember();
    });
  }
  for (const name of ["errors", "cells"]) {
    $(name).checked = view[name];
    $(name).addEventListener("change", () => {
      view[name] = $(name).checked;
      opened.clear();
      refilter();
      remember();
    });
  }
  $("cells").parentElement.hidden = nodes.length <= MANY;
  wireMenus();
  window.addEventListener("beforeprint", beforePrint);
  $("keys-button").addEventListener("click", toggleKeys);
  $("zoom").addEventListener(
    "click",
    ({
      target: {
        dataset: { zoom },
      },
    }) => {
      if (zoom === "fit") fit();
      else if (zoom) zoomBy(zoom === "in" ? 1.3 : 1 / 1.3);
    },
  );
  document.addEventListener("keydown", keys);
  window.addEventListener("popstate", onAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    draw();
  });
  let resized;
  new ResizeObserver(() => {
    network.redraw();
    // A window of another shape has another fit, once it is still.
    clearTimeout(resized);
    resized = setTimeout(() => {
      refit();
      settle();
    }, 120);
  }).observe(canvas);
}

readPalette();
const chosenAtFirst = fromHash().get("node");
restoreAtFirst();
readCards();
makeTabs();
openTab("node");
wire();
drawLegend();
makeScene();
reshape();
store.subscribe(readCards);
listeners.push(draw, drawCard, followFilters, markRow, drawPins);
view.selected = itemOf(chosenAtFirst);
changed();
remember();
refit();
if (view.selected) bringIntoView(drawnAs(view.selected));
const ready = Promise.all([unpackCards(), settled]).then(() => {});

/* The colour that a line or a fill of this name has on the screen, over paper: red, green, blue. */
function painted(name) {
  const dot = el("canvas", { width: 1, height: 1 }).getContext("2d");
  dot.fillStyle = palette.paper;
  dot.fillRect(0, 0, 1, 1);
  dot.globalAlpha = groups.has(name) ? RESTING : 1;
  dot.fillStyle = palette[name];
  dot.fillRect(0, 0, 1, 1);
  return [...dot.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/* `circuit.position(key)`: where a node stands on the page, in CSS pixels. */
window.circuit = {
  ready,
  select: (key) => select(itemOf(key), { focus: true }),
  selected: () => view.selected?.key ?? null,
  visible: () => nodes.filter((node) => scene.shown.has(node.id)).map((node) => node.key),
  drawn: () => scene.items.map((item) => item.key),
  lines: () =>
    scene.drawn.map((line) => ({
      source: itemById.get(line.from).key,
      target: itemById.get(line.to).key,
      support: line.support,
      width: lineWidth(line) * network.getScale(),
    })),
  state: () => toFile(store.state),
  whole: () => resting.id === null || layer.whole(resting.id),
  svg: svgText,
  painted,
  labelled: () => marks.labels.map((label) => label.key),
  scale: () => network.getScale(),
  radius: (key) => radius(itemOf(key)) * network.getScale(),
  position: (key) => {
    const at = network.canvasToDOM(placeNow(itemOf(key)));
    const box = canvas.getBoundingClientRect();
    return { x: box.left + at.x, y: box.top + at.y };
  },
};
