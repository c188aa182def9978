/* Names that ES modules use without declaring or importing them, as JSON by file:
   `node --expose-internals free_names.cjs FILE...`, by the parser that comes with node. */

const acorn = require("internal/deps/acorn/acorn/dist/acorn");
const fs = require("fs");

/* The names that a pattern binds. */
function bound(pattern) {
  switch (pattern?.type) {
    case "Identifier":
      return [pattern.name];
    case "ObjectPattern":
      return pattern.properties.flatMap((each) => bound(each.argument ?? each.value));
    case "ArrayPattern":
      return pattern.elements.flatMap(bound);
    case "AssignmentPattern":
      return bound(pattern.left);
    case "RestElement":
      return bound(pattern.argument);
    default:
      return [];
  }
}

/* The names that statements declare in their own block. */
const declared = (statements) =>
  statements.filter(Boolean).flatMap((each) => {
    const it = each.declaration ?? each;
    if (it.type === "VariableDeclaration") return it.declarations.flatMap((one) => bound(one.id));
    if (it.type === "ImportDeclaration") return it.specifiers.map((one) => one.local.name);
    return /^(Function|Class)Declaration$/.test(it.type) ? [it.id.name] : [];
  });

function freeIn(code) {
  const free = new Set();
  const all = (node, known, ...keys) => keys.forEach((key) => walk(node[key], known));
  /* Defaults and computed keys inside a pattern; what it binds is known already. */
  const defaults = (pattern, known) => {
    if (pattern?.type === "AssignmentPattern") {
      defaults(pattern.left, known);
      walk(pattern.right, known);
    } else if (pattern?.type === "ObjectPattern")
      pattern.properties.forEach((each) => defaults(each.value, known));
    else if (pattern?.type === "ArrayPattern") pattern.elements.forEach((each) => defaults(each, known));
    else if (pattern?.type === "MemberExpression") walk(pattern, known);
  };
  const walkers = {
    Identifier: (node, known) => known.has(node.name) || free.add(node.name),
    MemberExpression: (node, known) => all(node, known, "object", ...(node.computed ? ["property"] : [])),
    Property: (node, known) => all(node, known, "value", ...(node.computed ? ["key"] : [])),
    VariableDeclarator: (node, known) => (defaults(node.id, known), walk(node.init, known)),
    BlockStatement: (node, known) => all(node, new Set([...known, ...declared(node.body)]), "body"),
    CatchClause: (node, known) => walk(node.body, new Set([...known, ...bound(node.param)])),
    ImportDeclaration: () => {},
    AssignmentExpression: (node, known) => {
      for (const name of bound(node.left)) if (!known.has(name)) free.add(name);
      defaults(node.left, known);
      walk(node.right, known);
    },
  };
  const loop = (node, known) =>
    all(node, new Set([...known, ...declared([node.init ?? node.left])]), "left", "init", "test", "right", "update", "body");
  for (const kind of ["For", "ForOf", "ForIn"]) walkers[`${kind}Statement`] = loop;
  const called = (node, known) => {
    const inner = new Set([...known, ...node.params.flatMap(bound), "arguments"]);
    node.params.forEach((each) => defaults(each, inner));
    walk(node.body, inner);
  };
  for (const kind of ["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"])
    walkers[kind] = called;
  function walk(node, known) {
    if (Array.isArray(node)) node.forEach((each) => walk(each, known));
    else if (node?.type in walkers) walkers[node.type](node, known);
    else if (node && typeof node === "object") Object.values(node).forEach((each) => walk(each, known));
  }
  const { body } = acorn.parse(code, { ecmaVersion: "latest", sourceType: "module" });
  walk(body, new Set(declared(body)));
  return [...free].sort();
}

const found = process.argv.slice(2).map((file) => [file, freeIn(fs.readFileSync(file, "utf8"))]);
console.log(JSON.stringify(Object.fromEntries(found)));
