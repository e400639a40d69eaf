// JSON paths: `$.data.items[*].name`, with slices, unions, filters, scripts, `..`, `^` and `~`.

/** The steps of parsed paths, by text: jobs use few paths, many times. */
const parsedPaths = new Map();

/** All values that `path` finds in `root`, in order. */
function findAll(path, root) {
  if (typeof path !== 'string') throw new TypeError(`A JSON path must be a string, not ${path}`);
  if (path === '' || /^\.[^.]/.test(path)) return [];
  let steps = parsedPaths.get(path);
  if (steps === undefined) {
    steps = parsePath(path);
    parsedPaths.set(path, steps);
  }
  const found = [];
  follow({ value: root, root }, steps, 0, (node) => found.push(node.value));
  return found;
}

const findFirst = (path, root) => findAll(path, root)[0];

function parsePath(path) {
  const steps = [];
  let at = path[0] === '$' && !/^\$[\w]/.test(path) ? 1 : 0;
  while (at < path.length) {
    const rest = path.slice(at);
    let match;
    if (rest.startsWith('..') || rest.startsWith('.[')) {
      // `.[` means the same: `dataValue` makes such paths.
      steps.push({ kind: 'descend' });
      at += rest.startsWith('..[') || rest === '..' ? 2 : 1;
    } else if (rest[0] === '[') {
      const end = closing(path, at);
      steps.push(subscript(path.slice(at + 1, end).trim(), path));
      at = end + 1;
    } else if (rest[0] === '^') {
      steps.push({ kind: 'parent' });
      at += 1;
    } else if (rest[0] === '~') {
      steps.push({ kind: 'key' });
      at += 1;
    } else if ((match = /^\.?`([^.[\]^~]+)/.exec(rest))) {
      steps.push({ kind: 'names', names: [match[1]] });
      at += match[0].length;
    } else if ((match = /^\.?@(\w+)\(\)/.exec(rest))) {
      throw new Error(`JSON paths have no type selectors here: @${match[1]}() in ${path}`);
    } else if ((match = /^\.?\*/.exec(rest))) {
      steps.push({ kind: 'all' });
      at += match[0].length;
    } else if ((match = /^\.?([^.[\]^~]+?)(?=@\w+\(\)|[.[\]^~]|$)/.exec(rest))) {
      steps.push({ kind: 'names', names: [match[1]] });
      at += match[0].length;
    } else {
      at += 1;
    }
  }
  return steps;
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

function subscript(inside, path) {
  if (inside === '*') return { kind: 'all' };
  if (inside.startsWith('?(') && inside.endsWith(')')) {
    return { kind: 'filter', test: parseFilter(inside.slice(2, -1), path) };
  }
  if (inside.startsWith('(') && inside.endsWith(')')) {
    return { kind: 'script', name: parseFilter(inside.slice(1, -1), path) };
  }
  const slice = /^(-?\d*):(-?\d*)(?::(\d*))?$/.exec(inside);
  if (slice) return { kind: 'slice', start: slice[1], end: slice[2], step: Number(slice[3] || 1) || 1 };
  const quoted = /^(['"])(.*)\1$/s.exec(inside);
  if (quoted && !inside.includes(',')) return { kind: 'names', names: [quoted[2]] };
  const names = inside.match(/'[^']*'|"[^"]*"|[^,]+/g) ?? [];
  return { kind: 'names', names: names.map((name) => name.trim().replace(/^(['"])(.*)\1$/s, '$2')) };
}

const isContainer = (value) => typeof value === 'object' && value !== null;

const child = (node, key) => ({ value: node.value[key], key, parent: node, root: node.root });

const children = (node) => (isContainer(node.value) ? Object.keys(node.value).map((key) => child(node, key)) : []);

/** Follows the steps from `at` on, and gives `emit` each node that they lead to. */
function follow(node, steps, at, emit) {
  if (at === steps.length) {
    emit(node);
    return;
  }
  const step = steps[at];
  const next = (target) => follow(target, steps, at + 1, emit);
  switch (step.kind) {
    case 'names':
      for (const name of step.names) {
        if (name === '$') next(node);
        else if (node.value && Object.hasOwn(Object(node.value), name)) next(child(node, name));
      }
      break;
    case 'all':
      children(node).forEach(next);
      break;
    case 'descend':
      descend(node, next);
      break;
    case 'slice':
      if (Array.isArray(node.value)) sliced(node, step).forEach(next);
      break;
    case 'filter':
      children(node).filter((item) => step.test(item)).forEach(next);
      break;
    case 'script': {
      const name = step.name(node);
      if (node.value && Object.hasOwn(Object(node.value), name)) next(child(node, name));
      break;
    }
    case 'parent':
      if (node.parent !== undefined) next(node.parent);
      break;
    case 'key': {
      const { key } = node;
      next({ value: Array.isArray(node.parent?.value) ? Number(key) : key, key, parent: node.parent, root: node.root });
      break;
    }
  }
}

function descend(node, next) {
  next(node);
  for (const item of children(node)) if (isContainer(item.value)) descend(item, next);
}

function sliced(node, { start, end, step }) {
  const { length } = node.value;
  const bound = (text, otherwise) => {
    const index = text === '' ? otherwise : Number(text);
    return index < 0 ? Math.max(0, index + length) : Math.min(length, index);
  };
  const items = [];
  for (let i = bound(start, 0); i < bound(end, length); i += step) items.push(child(node, String(i)));
  return items;
}
