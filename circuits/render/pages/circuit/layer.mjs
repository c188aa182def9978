/* Many lines, painted once into a picture of their own that moves with the view. Pure: the canvases
   and the clock are given. */

/* The curve of a line, upright at both ends: start, two handles, end, as x and y in turn. */
export function curve(a, b, bend) {
  const dy = (a.y - b.y) * bend;
  return [a.x, a.y, a.x, a.y - dy, b.x, b.y + dy, b.x, b.y];
}

/* Whether a line between two places can be seen in a part of the plane: it stays in the box of its
   ends, and is no wider than `around` on each side. */
export const meets = (a, b, part, around) =>
  Math.max(a.x, b.x) + around >= part.x &&
  Math.min(a.x, b.x) - around <= part.x + part.width &&
  Math.max(a.y, b.y) + around >= part.y &&
  Math.min(a.y, b.y) - around <= part.y + part.height;

/* The line that runs nearest to a place, no farther from it than `reach`; null where none does. */
export function nearest(lines, at, ends, bend, reach) {
  let found = null;
  for (const line of lines) {
    const [a, b] = ends(line);
    if (!meets(a, b, { ...at, width: 0, height: 0 }, reach)) continue;
    const away = distance(curve(a, b, bend), at);
    if (away <= (found?.away ?? reach)) found = { line, away };
  }
  return found?.line ?? null;
}

const STEPS = 40;

/* How far a place is from a curve, which is taken as this many straight pieces. */
function distance([x0, y0, x1, y1, x2, y2, x3, y3], { x, y }) {
  const on = (t, a, b, c, d) =>
    (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;
  let least = Infinity;
  let [px, py] = [x0, y0];
  for (let step = 1; step <= STEPS; step++) {
    const [qx, qy] = [on(step / STEPS, x0, x1, x2, x3), on(step / STEPS, y0, y1, y2, y3)];
    const [dx, dy] = [qx - px, qy - py];
    const along = ((x - px) * dx + (y - py) * dy) / (dx * dx + dy * dy || 1);
    const t = Math.max(0, Math.min(1, along));
    least = Math.min(least, Math.hypot(x - px - t * dx, y - py - t * dy));
    [px, py] = [qx, qy];
  }
  return least;
}

const holds = (outer, inner) =>
  outer.x <= inner.x &&
  outer.y <= inner.y &&
  outer.x + outer.width >= inner.x + inner.width &&
  outer.y + outer.height >= inner.y + inner.height;

/* A view with a margin on each side, a whole number of pixels wide so that nothing is blurred. */
function widened(view, margin) {
  const at = (side) => Math.round(view[side] * view.scale * margin) / view.scale;
  const [dx, dy] = [at("width"), at("height")];
  return { x: view.x - dx, y: view.y - dy, width: view.width + 2 * dx, height: view.height + 2 * dy };
}

/* A layer shows lines as they were painted last, moved and scaled to the view. Once the view rests
   they are painted anew, `slice` lines a frame, so that no frame takes long; until all are there
   the picture before is shown, or where that was of other lines, what there is of this one.

   `newCanvas(width, height)` in pixels; `paint(context, lines, part)` in the units of the view;
   `later(step, wait)` runs a step after `wait` ms and gives a function that calls it off; `changed`
   is told that there is more to show. A view has x, y, width, height in its own units, `scale`, in
   CSS pixels a unit, and `ratio`, device pixels a CSS pixel. */
export function createLayer({ newCanvas, paint, later, changed, slice = 400, margin = 0.2, rest = 60 }) {
  let shown = null;
  let coming = null;
  let asked = null;
  let callOff = null;
  const fits = (sheet, view, content) =>
    sheet?.id === content.id &&
    sheet.scale === view.scale &&
    sheet.ratio === view.ratio &&
    holds(sheet.part, view);

  function begin() {
    const { view, content } = asked;
    const part = widened(view, margin);
    const k = view.scale * view.ratio;
    const canvas = newCanvas(Math.round(part.width * k), Math.round(part.height * k));
    const context = canvas.getContext("2d");
    context.setTransform(k, 0, 0, k, -part.x * k, -part.y * k);
    const { scale, ratio } = view;
    coming = { canvas, context, part, scale, ratio, ...content, painted: 0 };
    step();
  }

  function step() {
    const { context, lines, part, painted } = coming;
    paint(context, lines.slice(painted, painted + slice), part);
    coming.painted = Math.min(lines.length, painted + slice);
    const whole = coming.painted === lines.length;
    if (whole || shown?.id !== coming.id) changed();
    if (whole) [shown, coming, callOff] = [coming, null, null];
    else callOff = later(step, 0);
  }

  return {
    /* Whether all lines of a content are painted as they are to be seen. */
    whole: (id) => asked?.content.id === id && fits(shown, asked.view, asked.content),
    /* The picture for this view of some `content`, `{id, lines}` with the strongest line first, and
       the part of the plane that it shows; null where there is none yet. */
    at(view, content) {
      asked = { view, content };
      if (!fits(shown, view, content) && !fits(coming, view, content)) {
        callOff?.();
        const fresh = shown?.id !== content.id && coming?.id !== content.id;
        coming = coming?.id === content.id && shown?.id !== content.id ? coming : null;
        callOff = later(begin, fresh ? 0 : rest);
      }
      const sheet = shown?.id === content.id ? shown : coming;
      return sheet && { canvas: sheet.canvas, ...sheet.part };
    },
    /* Let go of all that is of another content, whose nodes may be gone; null is none. */
    only(id) {
      if (asked === null || asked.content.id === id) return;
      callOff?.();
      [shown, coming, asked, callOff] = [null, null, null, null];
    },
  };
}
