/* What the pointer does on the canvas: select, pin, open, drag. */

network.on("click", ({ nodes: hit, event }) => {
  const item = hit.length ? itemById.get(hit[0]) : null;
  if (item && event.srcEvent?.shiftKey) {
    togglePin(item);
    return;
  }
  if (item) openTab("node");
  select(item ?? null);
});
network.on("doubleClick", ({ nodes: hit }) => {
  const item = hit.length ? itemById.get(hit[0]) : null;
  if (item?.members) openBox(item);
});
network.on("dragEnd", ({ nodes: hit }) => {
  moved ||= !hit.length || !scene.places;
  if (!hit.length || !scene.places) return;
  const places = Object.entries(network.getPositions(hit)).map(([id, { x, y }]) => [
    hit.find((each) => String(each) === id),
    [Math.round(x), Math.round(y)],
  ]);
  store.change(
    steps.move(Object.fromEntries(places.map(([id, at]) => [itemById.get(id).key, at]))),
  );
});
let zooming;
network.on("zoom", () => {
  moved = true;
  clearTimeout(zooming);
  zooming = setTimeout(() => magnified() !== drawnAt && draw(), 60);
});
network.on("hoverNode", () => {
  canvas.style.cursor = "pointer";
});
network.on("blurNode", () => {
  canvas.style.cursor = "";
});
