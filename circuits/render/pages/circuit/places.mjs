/* Where labels stand, so that none lies on another or on a node. Pure: text is measured outside. */

export const FONT = 11.5; // px
const GAP = 7; // px between two labels in a row, or they read as one
const ROW = 20;

/* A text and its width, its end replaced by … where it is wider than `room`. */
export function cut(text, room, measure) {
  const letters = [...text];
  let kept = letters.length,
    shown = text;
  while (kept > 1 && measure(shown) > room) {
    kept = Math.min(kept - 1, Math.floor((kept * room) / measure(shown)) + 1);
    shown = `${letters.slice(0, kept).join("").replace(/[\s…]+$/, "")}…`;
  }
  return { text: shown, width: measure(shown) };
}

/* Boxes already taken, kept by the rows of pixels they touch. */
export function occupancy() {
  const rows = new Map();
  const touched = (box, visit) => {
    for (let r = Math.floor(box.top / ROW); r <= Math.floor(box.bottom / ROW); r += 1) visit(r);
  };
  const meet = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return {
    take: (box) =>
      touched(box, (r) => {
        if (rows.has(r)) rows.get(r).push(box);
        else rows.set(r, [box]);
      }),
    free: (box) => {
      let clear = true;
      touched(box, (r) => {
        clear &&= !(rows.get(r) ?? []).some((other) => meet(box, other));
      });
      return clear;
    },
  };
}

/* Where a label may stand: below the node, to its right, to its left; long before short. */
function* nearPlaces(texts, at, radius) {
  for (const { text, width } of texts) {
    const box = (left, top) => ({ text, left, top, right: left + width, bottom: top + FONT + 1 });
    yield box(at.x - width / 2, at.y + radius + 2);
    yield box(at.x + radius + 4, at.y - FONT / 2);
    yield box(at.x - radius - 4 - width, at.y - FONT / 2);
    yield box(at.x - width / 2, at.y - radius - FONT - 3);
  }
}

/* Farther places, ring after ring, for a label that a line leads to. */
const RINGS = [26, 44, 64, 88, 116, 150, 190, 240];

function* fartherPlaces(texts, at) {
  for (const { text, width } of texts.slice(1))
    for (const away of RINGS)
      for (let turn = 0; turn < 16; turn += 1) {
        const angle = (turn * Math.PI) / 8;
        const left = at.x + away * 1.4 * Math.cos(angle) - width / 2;
        const top = at.y + away * Math.sin(angle) - FONT / 2;
        yield { text, left, top, right: left + width, bottom: top + FONT + 1, led: at };
      }
}

/* The labels that find room on a canvas of `size`, in the order of `wishes`: each `{key, at, radius,
   needed, texts}`, whose `texts()` are the label cut to several widths. No more than `most` are
   placed, except those that are needed, which may stand farther away. */
export function labelsPlaced(wishes, { taken, size, most }) {
  const stands = (box) =>
    box.left > 2 &&
    box.right < size.width - 2 &&
    box.top > 0 &&
    box.bottom < size.height &&
    taken.free(box);
  const first = (places) => {
    for (const place of places) if (stands(place)) return place;
    return null;
  };
  const found = [];
  for (const { key, at, radius, needed, texts } of wishes) {
    if (found.length >= most && !needed) continue;
    const cuts = texts();
    const place =
      first(nearPlaces(cuts, at, radius)) ?? (needed ? first(fartherPlaces(cuts, at)) : null);
    if (!place) continue;
    taken.take({ ...place, left: place.left - GAP, right: place.right + GAP });
    found.push({ ...place, key });
  }
  return found;
}
