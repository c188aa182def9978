/* Wiring: tabs, search, sliders, keys, and the handle that tests and notebooks use. */

const TABS = [
  ["node", "Node", null],
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

const haystack = nodes.map((node) => `${node.name} ${node.token ?? ""} ${node.key}`.toLowerCase());
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
  const shown = visibleNodes();
  const node = view.selected;
  if (!node) return nodes.find((each) => shown.has(each.id));
  if (key === "ArrowUp") return nodes[outputs[node.id].find((e) => shown.has(e.to))?.to];
  if (key === "ArrowDown") return nodes[inputs[node.id].find((e) => shown.has(e.from))?.from];
  const band = nodes
    .filter((each) => each.site === node.site && shown.has(each.id))
    .sort((a, b) => a.x - b.x || a.y - b.y);
  return band[band.indexOf(node) + (key === "ArrowRight" ? 1 : -1)];
}

function toggleKeys() {
  if ($("keys").open) $("keys").close();
  else $("keys").showModal();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=search], input[type=range]");
  if (event.key === "?" && !typing) toggleKeys();
  else if (event.key === "/" && !typing) {
    $("search").focus();
    event.preventDefault();
  } else if (event.key === "Escape" && !typing && !$("keys").open) select(null);
  else if (event.key === "f" && !typing) fit();
  else if (
    event.key.startsWith("Arrow") &&
    (canvas.contains(event.target) || (alone && event.target === document.body))
  ) {
    const next = step(event.key);
    if (next) select(next, { focus: true });
    event.preventDefault();
  }
}

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
      draw();
    });
  }
  $("errors").addEventListener("change", () => {
    view.errors = $("errors").checked;
    draw();
  });
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
  window.addEventListener("hashchange", () => select(fromHash(), { focus: true }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    draw();
  });
  new ResizeObserver(() => {
    network.redraw();
  }).observe(canvas);
}

readPalette();
makeTabs();
openTab("node");
listeners.push(draw, drawCard, markRow);
wire();
drawLegend();
fit();
select(fromHash(), { focus: true });
const ready = unpackCards();

/* `circuit.position(key)`: where a node stands on the page, in CSS pixels. */
window.circuit = {
  ready,
  select: (key) => select(byKey.get(key) ?? null, { focus: true }),
  selected: () => view.selected?.key ?? null,
  visible: () => nodes.filter((node) => nodeSet.get(node.id)).map((node) => node.key),
  position: (key) => {
    const at = network.canvasToDOM(byKey.get(key));
    const box = canvas.getBoundingClientRect();
    return { x: box.left + at.x, y: box.top + at.y };
  },
};
