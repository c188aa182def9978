/* The two menus of the toolbar: which sites are shown, and what can be taken away from the page. */

import { $, el } from "../dom.mjs";
import { nodes, payload, view } from "./state.mjs";
import { loadState, remember, saveState } from "./keep.mjs";
import { refilter } from "./view.mjs";
import { bandNames } from "./axes.mjs";
import { savePng, saveSvg } from "./drawing.mjs";
import { action } from "./pins.mjs";

function siteMenu() {
  const sites = payload.bands.map((band) => band.site).filter((site) => site !== "logit");
  const n = (site) => nodes.filter((node) => node.site === site).length;
  const show = (hidden) => {
    view.hidden = hidden;
    refilter();
    remember();
  };
  const box = (site) =>
    el(
      "label",
      {},
      el("input", {
        type: "checkbox",
        value: site,
        checked: !view.hidden.includes(site),
        change: (event) =>
          show(
            event.target.checked
              ? view.hidden.filter((each) => each !== site)
              : [...view.hidden, site],
          ),
      }),
      bandNames[site] ?? site,
      el("span", { class: "soft number" }, ` ${n(site)}`),
    );
  const every = (text, hidden) =>
    action(text, () => {
      show(hidden);
      siteMenu();
    });
  $("site-list").replaceChildren(
    el("div", { class: "actions" }, every("All", []), every("None", sites)),
    ...sites.map(box),
  );
}

function exportMenu() {
  const item = (text, click) => action(text, () => {
    $("export").open = false;
    click();
  });
  $("export-list").replaceChildren(
    item("Picture as SVG", saveSvg),
    item("Picture as PNG", savePng),
    item("Save state (JSON)", saveState),
    item("Load state …", () => $("state-file").click()),
  );
  $("state-file").addEventListener("change", async () => {
    const [file] = $("state-file").files;
    if (file) await loadState(file);
    $("state-file").value = "";
  });
}

export function wireMenus() {
  siteMenu();
  exportMenu();
  const menus = [$("sites"), $("export")];
  document.addEventListener("pointerdown", ({ target }) => {
    for (const menu of menus) if (!menu.contains(target)) menu.open = false;
  });
  for (const menu of menus)
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      menu.open = false;
      menu.querySelector("summary").focus();
      event.stopPropagation();
    });
}
