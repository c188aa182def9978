/* The tabs beside the picture; each is built when it is first opened. */

import { $, el } from "../dom.mjs";
import { around } from "./find.mjs";
import { payload, select } from "./state.mjs";
import { pinsPanel } from "./pins.mjs";
import { checkPanel } from "./check.mjs";
import { ablationsPanel } from "./ablations.mjs";
import { tablePanel } from "./table.mjs";

const TABS = [
  ["node", "Node", null],
  ["pinned", "Pinned", pinsPanel],
  ["check", "Check", payload.verification && checkPanel],
  ["ablations", "Ablations", payload.ablations && ablationsPanel],
  ["table", "Table", tablePanel],
].filter(([name, , build]) => name === "node" || build);
export const built = new Set(["node"]);

export function makeTabs() {
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
    const next = TABS[around(at + step, TABS.length)][0];
    openTab(next);
    $(`tab-${next}`).focus();
    event.stopPropagation();
  });
}

export function openTab(name) {
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
export function goTo(node) {
  openTab("node");
  select(node, { focus: true });
}
