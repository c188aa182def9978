/* Where the labels of the columns stand, side by side in a row. Pure: no document. */

const GAP = 4; // px between two labels
const HELD = 5; // px of a label that stay on each side of its column's centre

/* The left ends of labels of some widths over centres in `room`, each as near to its column as the
   others let it be; null where they do not all fit with their columns' centres over them. */
export function inRow(centres, widths, room) {
  const groups = [];
  const left = ({ sum, count, width }) => Math.min(Math.max(sum / count, 0), room - width);
  centres.forEach((centre, i) => {
    groups.push({ from: i, count: 1, width: widths[i], sum: centre - widths[i] / 2 });
    while (groups.length > 1) {
      const [before, last] = groups.slice(-2);
      const step = before.width + GAP;
      if (left(before) + step <= left(last)) break;
      groups.splice(-2, 2, {
        from: before.from,
        count: before.count + last.count,
        width: step + last.width,
        sum: before.sum + last.sum - last.count * step,
      });
    }
  });
  const lefts = groups.flatMap((group) => {
    let at = left(group);
    return widths.slice(group.from, group.from + group.count).map((width) => {
      const own = at;
      at += width + GAP;
      return own;
    });
  });
  const held = (own, i) => {
    const most = Math.min(HELD, widths[i] / 2);
    return own >= -0.5 && own + most <= centres[i] && centres[i] <= own + widths[i] - most;
  };
  return lefts.every(held) ? lefts : null;
}
