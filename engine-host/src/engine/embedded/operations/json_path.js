// JSON paths: `$.data.items[*].name`, with slices, unions, filters, scripts, type selectors, `..`, `^` and `~`.
// What they find is what jsonpath-plus finds, its oddities included: published workflows are written for it.

/** The steps of parsed paths, by text: jobs use few paths, many times. */
const parsedPaths = new Map();

/** All values that `path` finds in `root`, in order. */
function findAll(path, root) {
  if (typeof path !== 'string') throw new TypeError(`A JSON path must be a string, not ${path}`);
  let steps = parsedPaths.get(path);
  if (steps === undefined) {
    steps = parsePath(path);
    parsedPaths.set(path, steps);
  }
  const found = [];
  follow({ node: { value: root, key: null, root }, at: 0, literal: false }, steps, (value) => found.push(value));
  return found;
}

const findFirst = (path, root) => findAll(path, root)[0];

function parsePath(path) {
  const names = splitPath(path);
  if (names.length > 1 && names[0] === '$') names.shift();
  // Nothing lies before the first dot.
  return names[0] === '' ? [{ kind: 'nothing' }] : names.map((name) => parseStep(name, path));
}

/** What stands between a path's dots and brackets; `..` for what stands between two in a row. */
function splitPath(path) {
  const parts = [''];
  // `^` stands alone, whether or not a dot follows.
  let isCut = false;
  const cut = () => {
    if (!isCut) parts.push('');
    isCut = false;
  };
  const add = (text) => {
    parts[parts.length - 1] += text;
    isCut = false;
  };
  const type = /@(?:null|boolean|number|string|integer|undefined|nonFinite|scalar|array|object|function|other)\(\)/y;
  const quoted = /\[(?:'([^'\]]*)'|"([^'\]]*)")\]/y;
  const ups = /\.?(\^+)/y;
  const plain = /[^.[\]~^@]+|@/y;
  for (let at = 0; at < path.length; ) {
    const reads = (pattern) => {
      pattern.lastIndex = at;
      const match = pattern.exec(path);
      if (match !== null) at = pattern.lastIndex;
      return match;
    };
    let match;
    if (path[at] === '[' && /^\[\??\(/.test(path.slice(at, at + 3))) {
      const end = closing(path, at);
      cut();
      add(path.slice(at + 1, end));
      at = end + 1;
    } else if ((match = reads(quoted))) {
      cut();
      add(match[1] ?? match[2]);
    } else if ((match = reads(ups))) {
      for (const up of match[1]) {
        cut();
        add(up);
      }
      cut();
      isCut = true;
    } else if ((match = reads(type))) {
      cut();
      add(match[0]);
      cut();
    } else if (path[at] === '~') {
      cut();
      add('~');
      cut();
      at += 1;
    } else if (path[at] === '[') {
      cut();
      const end = path.indexOf(']', at);
      const inside = path.slice(at + 1, end < 0 ? path.length : end);
      add(inside.replace(/^['"]/, '').replace(/'$/, ''));
      at += inside.length + 1;
    } else if (path[at] === '.') {
      cut();
      at += 1;
    } else if ((match = reads(plain))) {
      add(match[0]);
    } else {
      at += 1;
    }
  }
  return parts.flatMap((part, index) => {
    if (part !== '' || index === 0) return [part];
    // The second of two gaps, or one that ends the path.
    if (parts[index - 1] === '' && index > 1) return [];
    return index === parts.length - 1 ? [] : ['..'];
  });
}

/** Where the bracket that opens at `start` closes; quotes and nested brackets count. */
function closing(path, start) {
  let depth = 0;
  let quote;
  for (let i = start; i < path.length; i += 1) {
    const char = path[i];
    if (quote !== undefined) {
      if (char === '\\') i += 1;
      else if (char === quote) quote = undefined;
    } else if (char === "'" || char === '"') quote = char;
    else if (char === '[' || char === '(') depth += 1;
    else if (char === ']' || char === ')') {
      depth -= 1;
      if (depth === 0) return i;
    }
  }
  throw new Error(`A bracket is not closed in the JSON path ${path}`);
}

const simpleSteps = { '*': 'all', '..': 'descend', '^': 'up', '~': 'key', $: 'same' };

function parseStep(text, path) {
  if (Object.hasOwn(simpleSteps, text)) return { kind: simpleSteps[text], text };
  const slice = /^(-?\d*):(-?\d*):?(\d*)$/.exec(text);
  if (slice) return { kind: 'slice', text, bounds: slice.slice(1).map(Number) };
  if (text.startsWith('?(')) return { kind: 'filter', text, test: parseTest(text.replace(/^\?\((.*)\)$/s, '$1'), path) };
  if (text[0] === '(') return { kind: 'script', text, name: parseFilter(text, path) };
  if (text[0] === '@') return { kind: 'type', text, is: typeTests[text.slice(1, -2)], path };
  if (text[0] === '`') return { kind: 'name', text, name: text.slice(1) };
  if (text.includes(',')) return { kind: 'any', text, steps: text.split(',').map((part) => parseStep(part, path)) };
  return { kind: 'name', text, name: text };
}

/** The test of a filter; of one within a filter (`@.tags[?(@ == 'a')]`), whether it finds anything. */
function parseTest(source, path) {
  const inner = /^@.?([^?]*)\[\?\((.*)\)\]$/s.exec(source);
  if (inner === null) return parseFilter(source, path);
  const test = parseFilter(inner[2], path);
  const owner = (item) => (inner[1] === '' ? item : has(item.value, inner[1]) ? child(item, inner[1]) : undefined);
  return (item) => {
    const target = owner(item);
    return target !== undefined && children(target).some(test);
  };
}

const typeTests = {
  null: (value) => value === null,
  boolean: (value) => typeof value === 'boolean',
  string: (value) => typeof value === 'string',
  undefined: (value) => value === undefined,
  function: (value) => typeof value === 'function',
  integer: (value) => Number.isInteger(value),
  number: (value) => Number.isFinite(value),
  nonFinite: (value) => typeof value === 'number' && !Number.isFinite(value),
  scalar: (value) => !value || !['object', 'function'].includes(typeof value),
  array: (value) => Array.isArray(value),
  object: (value) => typeof value === 'object' && value !== null,
};

const has = (value, key) => Boolean(value) && Object.hasOwn(value, key);

const child = (node, key) => ({ value: node.value[key], key, parent: node, root: node.root });

function children(node) {
  const { value } = node;
  if (Array.isArray(value)) return Array.from(value, (_, index) => child(node, index));
  return typeof value === 'object' && value !== null ? Object.keys(value).map((key) => child(node, key)) : [];
}

/**
 * Follows the steps from a place on, and gives `emit` each value that they lead to. A place is a node, the number of
 * the next step, the place that led here (`up`), and whether a key that is spelt like a step (`*`) is taken for a key.
 */
function follow(place, steps, emit, step = steps[place.at]) {
  const { node, at, up, literal } = place;
  if (step === undefined) {
    emit(node.value);
    return;
  }
  const next = (target, from = place, asKey = false) =>
    follow({ node: target, at: at + 1, up: from, literal: asKey }, steps, emit);
  const aside = { ...place, up: place };
  if (literal && has(node.value, step.text)) {
    next(child(node, step.text));
    return;
  }
  switch (step.kind) {
    case 'name':
      if (has(node.value, step.name)) next(child(node, step.name), place, true);
      break;
    case 'any':
      for (const one of step.steps) follow({ ...aside, literal: false }, steps, emit, one);
      break;
    case 'all':
      for (const item of children(node)) next(item, place, true);
      break;
    case 'same':
      next({ value: node.value, key: null, root: node.root });
      break;
    case 'descend':
      next(node);
      for (const item of children(node)) {
        if (typeof item.value === 'object') follow({ node: item, at, up: place, literal: false }, steps, emit);
      }
      break;
    case 'slice':
      for (const item of sliced(node, step.bounds)) next(item, aside);
      break;
    case 'filter':
      for (const item of children(node)) if (step.test(item)) next(item);
      break;
    case 'script': {
      const name = step.name(node, node);
      if (has(node.value, name)) next(child(node, name), aside, typeof name === 'string');
      break;
    }
    case 'up':
      if (up !== undefined) follow({ node: up.node, at: at + 1, up: up.up, literal: false }, steps, emit);
      break;
    // Nothing follows these two.
    case 'key':
      emit(node.key);
      break;
    case 'type':
      if (step.is === undefined) throw new TypeError(`There is no type selector ${step.text} for the JSON path ${step.path}`);
      if (step.is(node.value)) emit(node.value);
      break;
  }
}

function sliced(node, [start, end, step]) {
  if (!Array.isArray(node.value)) return [];
  const { length } = node.value;
  const bound = (index) => (index < 0 ? Math.max(0, index + length) : Math.min(length, index));
  const items = [];
  for (let i = bound(start); i < bound(end || length); i += step || 1) items.push(child(node, i));
  return items;
}

/** The path to a node, as expressions see it: `$['data']['items'][1]`. */
function pathTo({ key, parent }) {
  if (parent === undefined) return '$';
  return pathTo(parent) + (/^[0-9*]+$/.test(key) ? `[${key}]` : `['${key}']`);
}
