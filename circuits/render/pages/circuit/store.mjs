/* What a person made of the graph: pins, groups, labels, notes, places. Pure: no document here. */

export const SCHEMA = "circuits-state/1";
export const EMPTY = Object.freeze({
  pinned: [],
  groups: {},
  collapsed: [],
  labels: {},
  notes: {},
  places: {},
  dismissed: [],
});

/* A state with its history; `change` takes a function from the state to the next one. */
export function createStore(initial = EMPTY) {
  let now = { ...EMPTY, ...initial };
  let past = [];
  let future = [];
  const listeners = [];
  const go = (next) => {
    now = next;
    listeners.forEach((listener) => listener());
    return true;
  };
  return {
    get state() {
      return now;
    },
    get canUndo() {
      return past.length > 0;
    },
    get canRedo() {
      return future.length > 0;
    },
    subscribe: (listener) => listeners.push(listener),
    change(step) {
      const next = step(now);
      if (JSON.stringify(next) === JSON.stringify(now)) return false;
      past.push(now);
      future = [];
      return go(next);
    },
    /* Another state, with no way back. */
    reset(other) {
      past = [];
      future = [];
      go({ ...EMPTY, ...other });
    },
    undo() {
      if (!past.length) return false;
      future.push(now);
      return go(past.pop());
    },
    redo() {
      if (!future.length) return false;
      past.push(now);
      return go(future.pop());
    },
  };
}

const without = (list, gone) => list.filter((each) => !gone.includes(each));
const omit = (record, name) =>
  Object.fromEntries(Object.entries(record).filter(([each]) => each !== name));
/* The key of a group's box, which has a place of its own. */
export const boxKey = (name) => `group/${name}`;
const union = (...lists) => [...new Set(lists.flat())];

/* Groups without some keys; one that is left with none is gone. */
function groupsWithout(state, keys) {
  const groups = Object.fromEntries(
    Object.entries(state.groups)
      .map(([name, members]) => [name, without(members, keys)])
      .filter(([, members]) => members.length),
  );
  return { groups, collapsed: state.collapsed.filter((name) => Object.hasOwn(groups, name)) };
}

/* Steps from one state to the next; each leaves the state that it was given as it is. */
export const steps = {
  pin: (keys) => (state) => ({ ...state, pinned: union(state.pinned, keys) }),
  unpin: (keys) => (state) => ({
    ...state,
    ...groupsWithout(state, keys),
    pinned: without(state.pinned, keys),
  }),
  /* A node lies in one group at most; what is grouped is pinned, and drawn as one box at first. */
  group: (name, keys) => (state) => {
    const rest = groupsWithout(state, keys);
    const there = Object.hasOwn(rest.groups, name) ? rest.groups[name] : [];
    const members = union(there, keys);
    return {
      ...state,
      pinned: union(state.pinned, keys),
      groups: { ...rest.groups, [name]: members },
      collapsed: union(rest.collapsed, [name]),
    };
  },
  ungroup: (name) => (state) => ({
    ...state,
    groups: omit(state.groups, name),
    collapsed: without(state.collapsed, [name]),
    places: omit(state.places, boxKey(name)),
  }),
  rename: (name, other) => (state) => ({
    ...state,
    places: Object.fromEntries(
      Object.entries(state.places).map(([key, at]) => [
        key === boxKey(name) ? boxKey(other) : key,
        at,
      ]),
    ),
    groups: Object.fromEntries(
      Object.entries(state.groups).map(([each, keys]) => [each === name ? other : each, keys]),
    ),
    collapsed: state.collapsed.map((each) => (each === name ? other : each)),
  }),
  fold: (name) => (state) => ({
    ...state,
    collapsed: state.collapsed.includes(name)
      ? without(state.collapsed, [name])
      : [...state.collapsed, name],
  }),
  /* An empty text gives a node its own label back. */
  label: (keys, text) => (state) => ({ ...state, labels: written(state.labels, keys, text) }),
  note: (key, text) => (state) => ({ ...state, notes: written(state.notes, [key], text) }),
  move: (places) => (state) => ({ ...state, places: { ...state.places, ...places } }),
  dismiss: (id) => (state) => ({ ...state, dismissed: union(state.dismissed, [id]) }),
  load: (other) => (state) => ({ ...EMPTY, dismissed: state.dismissed, ...other }),
};

function written(texts, keys, text) {
  const left = Object.fromEntries(Object.entries(texts).filter(([key]) => !keys.includes(key)));
  return text ? { ...left, ...Object.fromEntries(keys.map((key) => [key, text])) } : left;
}

export const isEmpty = (state) =>
  !state.pinned.length && ![state.groups, state.labels, state.notes].some((r) => Object.keys(r).length);

/* What is kept in a file: pins, groups, labels and notes, which every reader knows, and where
   nodes and boxes were dragged to, if any were. */
export function toFile({ pinned, groups, collapsed, labels, notes, places }) {
  const moved = Object.keys(places).length ? { places } : {};
  return { schema: SCHEMA, pinned, groups, collapsed, labels, notes, ...moved };
}

/* A file's text, read. Keys that the graph does not have are left out and given as `unknown`.
   Throws an Error with one line that says what is wrong. */
export function fromFile(text, known) {
  const record = parsed(text);
  const state = {
    pinned: keys(record, "pinned"),
    groups: mapping(record, "groups", isKeys, "lists of nodes"),
    collapsed: keys(record, "collapsed"),
    labels: mapping(record, "labels", isText, "texts"),
    notes: mapping(record, "notes", isText, "texts"),
    places: mapping(record, "places", isPlace, "[x, y]"),
  };
  const owner = new Map();
  for (const [name, members] of Object.entries(state.groups))
    for (const key of members) {
      if (owner.has(key))
        throw new Error(`${key} is in two groups, ${owner.get(key)} and ${name}: a node has one`);
      owner.set(key, name);
    }
  return onlyKnown(state, known);
}

const isText = (value) => typeof value === "string";
const isPlace = (value) => Array.isArray(value) && value.length === 2 && value.every(Number.isFinite);
const isKeys = (value) => Array.isArray(value) && value.every(isText);

function parsed(text) {
  let record;
  try {
    record = JSON.parse(text);
  } catch {
    throw new Error("this is not JSON: choose a file that “Save” wrote");
  }
  if (record?.schema !== SCHEMA)
    throw new Error(
      `expected a state with schema ${SCHEMA}, got ${JSON.stringify(record?.schema ?? null)}: ` +
        "choose a file that “Save” wrote",
    );
  return record;
}

function keys(record, name) {
  const found = record[name] ?? [];
  if (!isKeys(found)) throw new Error(`“${name}” must be a list of texts`);
  return union(found);
}

function mapping(record, name, holds, what) {
  const found = record[name] ?? {};
  if (Array.isArray(found) || typeof found !== "object" || !Object.values(found).every(holds))
    throw new Error(`“${name}” must map names to ${what}`);
  return found;
}

function onlyKnown(state, known) {
  const all = union(
    state.pinned,
    ...Object.values(state.groups),
    Object.keys(state.labels),
    Object.keys(state.notes),
    Object.keys(state.places).filter((key) => !key.startsWith(boxKey(""))),
  );
  const unknown = all.filter((key) => !known.has(key));
  const of = (texts) => Object.fromEntries(Object.entries(texts).filter(([k]) => known.has(k)));
  const kept = groupsWithout(state, unknown);
  const boxes = new Set(Object.keys(kept.groups).map(boxKey));
  const places = Object.entries(state.places).filter(([key]) => known.has(key) || boxes.has(key));
  return {
    unknown,
    state: {
      ...kept,
      pinned: union(without(state.pinned, unknown), ...Object.values(kept.groups)),
      labels: of(state.labels),
      notes: of(state.notes),
      places: Object.fromEntries(places),
    },
  };
}

/* A record as letters that an address may hold, and back. */
export function toAddress(record) {
  const bytes = new TextEncoder().encode(JSON.stringify(record));
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

export function fromAddress(letters) {
  const text = atob(letters.replace(/-/g, "+").replace(/_/g, "/"));
  return new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0)));
}
