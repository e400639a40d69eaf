// The operations themselves.

/** Runs a function of state. */
const fn = (func) => (state) => {
  if (typeof func !== 'function') throw new TypeError(`fn takes a function, not ${typeof func}`);
  return func(state);
};

/** Runs an operation if a condition holds. */
const fnIf = (condition, operation) => (state) => {
  if (!resolved(state, condition)) return state;
  mustBeOperation(operation, 'fnIf');
  return operation(state);
};

/** Passes the state through operations, one after the other. */
const combine = (...operations) => (state) =>
  operations.reduce((before, operation, index) => {
    if (before === undefined || before === null) {
      throw new TypeError(`Operation ${index} in combine returned no state`);
    }
    return after(before, (current) => {
      mustBeOperation(operation, 'combine');
      return operation({ ...current });
    });
  }, state);

/** As `combine`, but always a promise. */
const execute = (...operations) => async (state) => {
  let current = state;
  for (const operation of operations) current = await operation(current);
  return current;
};

/** Runs an operation for each item, which it sees as `state.data`. */
const each = (source, operation) => (state) => {
  if (source === undefined || source === null) throw new TypeError(`each cannot take its items from ${source}`);
  const items = asData(source, state);
  if (!Array.isArray(items)) throw new TypeError(`each needs an array of items, not ${kindOf(items)}`);
  const step = (current, item, index) => {
    mustBeOperation(operation, 'each');
    if (current === undefined || current === null) {
      throw new TypeError(`The operation in each returned no state for item ${index - 1}`);
    }
    return operation({ ...current, data: item, index });
  };
  return items.reduce((before, item, index) => after(before, (current) => step(current, item, index)), state);
};

/** As `each`, but `state.data` is as it was before. */
const scopedEach = (source, operation) => (state) =>
  after(each(source, operation)(state), (last) => ({ ...last, data: state.data }));

const beta = { each: scopedEach };

const kindOf = (value) => (value === null ? 'null' : isThenable(value) ? 'a promise' : typeof value);

/** Replaces `state.data` by what a callback makes of each item: it gets the item, its index and the state. */
const map = (source, callback) => async (state) => {
  const found = typeof source === 'string' ? findAll(source, state) : source;
  const items = typeof found?.[Symbol.iterator] === 'function' ? [...found] : found;
  if (!Array.isArray(items)) throw new TypeError(`map needs a JSON path or an array, not ${kindOf(items)}`);
  const data = [];
  for (let index = 0; index < items.length; index += 1) data.push(await callback(items[index], index, state));
  return { ...state, data };
};

const field = (key, value) => [key, value];

const fields = (...pairs) => Object.fromEntries(pairs);

/** The items of a data source, each with more fields. */
const merge = (source, more) => (state) => {
  const items = typeof source === 'string' ? findAll(source, state) : asData(source, state);
  return items.map((item) => ({ ...item, ...resolved(state, more) }));
};

/** The objects at one path, each with the value at another path under a key that it does not have. */
const join = (targetPath, sourcePath, targetKey) => (state) =>
  findAll(targetPath, state).map((item) => ({ [targetKey]: findFirst(sourcePath, state), ...item }));

const source = (path) => (state) => findAll(path, state);

const sourceValue = (path) => (state) => findFirst(path, state);

/** What follows the `$` and the dots that a path may begin with. */
function relative(path) {
  const match = typeof path === 'string' ? /^[$.]*(.+)$/.exec(path) : null;
  if (match === null) throw new TypeError(`A JSON path must be a string with a name in it, not ${path}`);
  return match[1];
}

const dataPath = (path) => `$.data.${relative(path)}`;

const dataValue = (path) => sourceValue(dataPath(path));

const referencePath = (path) => `$.references${relative(path)}`;

const lastReferenceValue = (path) => sourceValue(referencePath(`[0].${path}`));

const jsonValue = (value, path) => findFirst(path, value);

/** Data from a JSON path, a function of state, or as it is. */
function asData(data, state) {
  switch (typeof data) {
    case 'string':
      return findAll(data, state);
    case 'object':
      return data;
    case 'function':
      return data(state);
    default:
      return undefined;
  }
}

/** The state with new data; the old data becomes the newest reference. */
const composeNextState = (state, response) => ({
  ...state,
  references: [...(state.references ?? []), state.data],
  data: response,
});

const index = () => (state) => state.index;

const toArray = (value) => [].concat(value);

const arrayToString = (items, separator) => items.join(separator);

function humanProper(string) {
  if (typeof string !== 'string') return string;
  const spaced = string.replace(/[_-]/g, ' ');
  return spaced.replace(/\w\S*/g, (word) => word[0].toUpperCase() + word.slice(1).toLowerCase());
}

/** The text with a replacement for emojis and other symbols. */
function scrubEmojis(text, replacement) {
  if (!text) return text;
  if (replacement === '') {
    console.warn(
      'Removing characters from a string may create injection vulnerabilities: replace them instead.',
      'See https://www.unicode.org/reports/tr36/#Deletion_of_Noncharacters'
    );
  }
  const symbols = /\uFE0F|[\u00a9\u00ae\u2000-\u3300]|[\ud83c-\ud83e][\ud000-\udfff]/g;
  return text.replace(symbols, replacement || replacement === '' ? replacement : '\uFFFD');
}

/** Two objects: the properties that are not among `names`, and those that are. */
function splitKeys(object, names) {
  const parts = [{}, {}];
  for (const [key, value] of Object.entries(object)) parts[names.includes(key) ? 1 : 0][key] = value;
  return parts;
}

function chunk(items, size) {
  if (!(size >= 1)) throw new RangeError(`chunk needs a size of 1 or more, not ${size}`);
  const chunks = [];
  for (let start = 0; start < items.length; start += size) chunks.push(items.slice(start, start + size));
  return chunks;
}

/** The keys of a path: `a.b`, `a["b"]`, a list of keys, or a key of `item` whatever is in it. */
function keysOf(path, item) {
  if (Array.isArray(path)) return path;
  const text = String(path);
  if (text in Object(item)) return [text];
  return [...text.matchAll(/\[(["'])(.*?)\1\]|[^.[\]]+/g)].map((match) => match[2] ?? match[0]);
}

/** Groups objects by the value at a path of keys. */
const group = (objects, keyPath, callback = (state) => state) => (state) => {
  const [items, path] = resolved(state, [objects, keyPath]);
  const groups = new Map();
  for (const item of Object.values(items ?? [])) {
    const value = keysOf(path, item).reduce((value, name) => value?.[name], item);
    if (value === undefined) continue;
    const key = String(value);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(item);
  }
  return callback({ ...state, data: Object.fromEntries(groups) });
};

/** Fails unless an expression holds. */
const assert = (expression, message) => (state) => {
  const [value, text] = resolved(state, [expression, message]);
  if (value) return state;
  throw new Error(text || `assertion statement failed with ${value}`);
};

let cursorKey = 'cursor';
let cursorStart;

/** Notes in the state how far a workflow has come: a value, or the date that a phrase means. */
const cursor = (value, options = {}) => (state) => {
  const { format, ...others } = options;
  const [given, { defaultValue, key }] = resolved(state, [value, others]);
  if (key) cursorKey = key;
  cursorStart ??= new Date();
  const position = given ?? defaultValue;
  const date = typeof position === 'string' ? parseDate(position, cursorStart) : undefined;
  if (date instanceof Date) {
    state[cursorKey] = format?.(date) ?? date.toISOString();
    console.log(`Setting ${cursorKey} "${position}" to: ${format ? state[cursorKey] : shownDate(date)}`);
    return state;
  }
  state[cursorKey] = format?.(position) ?? position;
  console.log(`Setting ${cursorKey} to:`, state[cursorKey]);
  return state;
};

/** Runs an operation and keeps its data under another key. */
const as = (key, operation) => async (state) => {
  mustBeOperation(operation, 'as');
  const [name, before] = [resolved(state, key), state.data];
  const { data, ...others } = await operation(state);
  return { ...state, [name]: data, data: before, ...others };
};

const log = (...values) => (state) => {
  console.log(...resolved(state, values));
  return state;
};

const debug = (...values) => (state) => {
  console.debug(...resolved(state, values));
  return state;
};

export {
  fn as alterState,
  arrayToString,
  as,
  asData,
  assert,
  beta,
  chunk,
  combine,
  composeNextState,
  cursor,
  dataPath,
  dataValue,
  dateFns,
  debug,
  each,
  execute,
  field,
  fields,
  fn,
  fnIf,
  group,
  humanProper,
  index,
  join,
  jsonValue,
  lastReferenceValue,
  log,
  map,
  merge,
  parseCsv,
  referencePath,
  scrubEmojis,
  source,
  sourceValue,
  splitKeys,
  toArray,
  util,
};
