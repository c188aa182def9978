/* Finding a node by text, and walking from one to the next. Pure: no document. */

/* What a search looks through of one node: its names, token, key, and what its card promotes. */
export function textOf(node, promoted) {
  const tokens = (promoted ?? []).map(([token]) => token);
  return [node.name, node.label, node.token ?? "", node.key, ...tokens].join(" ").toLowerCase();
}

/* The places of the texts that have every word of `text`; none for no word. */
export function matching(texts, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return [...texts.keys()].filter((i) => words.every((word) => texts[i].includes(word)));
}

/* A place in a list that goes on at its other end. */
export const around = (place, length) => ((place % length) + length) % length;

/* The id of what an arrow key goes to: up and down along the strongest line, left and right along
   the band; undefined where there is nothing. Lines come strongest first. */
export function goingFrom(item, key, { items, lines }) {
  if (key === "ArrowUp") return lines.find((line) => line.from === item.id)?.to;
  if (key === "ArrowDown") return lines.find((line) => line.to === item.id)?.from;
  const band = items
    .filter((each) => each.site === item.site)
    .sort((a, b) => a.x - b.x || a.y - b.y);
  const at = band.findIndex((each) => each.id === item.id);
  return band[at + (key === "ArrowRight" ? 1 : -1)]?.id;
}
