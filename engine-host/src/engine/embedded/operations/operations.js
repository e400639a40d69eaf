// The operations themselves. What they do with odd arguments, and in which words they fail, is what the published adaptor
// does on Node.

const findFirst = (path, json) => findAll(path, json)[0];

/** Runs a function of state. */
const fn = (func) => (state) => {
  mustBeFunction(func, 'func');
  return func(state);
};

/** Runs an operation if a condition holds. */
const fnIf = (condition, operation) => (state) => {
  if (!resolved(state, condition)) return state;
  mustBeFunction(operation, 'operation');
  return operation(state);
};

/** Calls an operation with a state or, when it comes, with that of a promise. Without promises everything is synchronous. */
function after(state, operation, more) {
  const run = (current) => {
    mustBeFunction(operation, 'operation');
    return operation({ ...Object(current), ...more });
  };
  return state.then ? state.then(run) : run(state);
}

/** Passes the state through operations, one after the other. */
const combine = (...operations) => (state) => operations.reduce((current, operation) => after(current, operation), state);

/** As `combine`, but always a promise, and with the very states that operations return. */
const execute = (...operations) => (state) =>
  operations.reduce((before, operation) => before.then(operation), Promise.resolve(state));

/** Runs an operation for each item, which it sees as `state.data`. */
const each = (source, operation) => eachOf(source, operation, 'asData(...).reduce');

/** As `each`; `reduce` is what an error calls the method that items without it lack. */
function eachOf(source, operation, reduce) {
  if (!source) throw new TypeError('dataSource argument for each operation is invalid.');
  return (state) => {
    const items = asData(source, state);
    if (items !== undefined && items !== null) mustBeFunction(items.reduce, reduce);
    return items.reduce((current, data, index) => after(current, operation, { data, index }), state);
  };
}

/** As `each`, but `state.data` is as it was before. */
function scopedEach(source, operation) {
  const run = eachOf(source, operation, 'items.reduce');
  return (state) => {
    const restored = (last) => ({ ...Object(last), data: state.data });
    const last = run(state);
    return last.then ? last.then(restored) : restored(last);
  };
}

const beta = { each: scopedEach };

/** Replaces `state.data` by what a callback makes of each item: it gets the item, its index and the state. */
const map = (path, callback) => async (state) => {
  const items = typeof path === 'string' ? findAll(path, state) : path;
  if (typeof items?.[Symbol.iterator] !== 'function') throw new TypeError('values is not iterable');
  const data = [];
  for (const item of items) {
    mustBeFunction(callback, 'callback');
    data.push(await callback(item, data.length, state));
  }
  return { ...Object(state), data };
};

const field = (key, value) => [key, value];

function fields(...pairs) {
  const object = {};
  for (const pair of pairs) define(object, pair[0], pair[1]);
  return object;
}

/** What a JSON path finds, each with more fields. */
const merge = (source, more) => (state) => {
  const items = findAll(source, state);
  const added = spread(resolved(state, more));
  return items.reduce((merged, item) => [...merged, { ...spread(item), ...added }], []);
};

/** The objects at one path, each with the value at another path under a key that it does not have. */
const join = (targetPath, sourcePath, targetKey) => (state) =>
  findAll(targetPath, state).map((item) => ({ [targetKey]: findFirst(sourcePath, state), ...spread(item) }));

const source = (path) => (state) => findAll(path, state);

const sourceValue = (path) => (state) => findFirst(path, state);

/** What follows the `$` and the dots that a path may begin with. */
function relative(path) {
  if (path !== undefined && path !== null) mustBeFunction(path.match, 'path.match');
  return path.match(/^[$.]*(.+)/)[1];
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
function composeNextState(state, response) {
  if (!state.references) put(state, 'references', []);
  return { ...Object(state), data: response, references: [...state.references, state.data] };
}

const index = () => (state) => state.index;

const toArray = (value) => [].concat(value);

const arrayToString = (items, separator) => Array.apply(null, items).join(separator);

function humanProper(string) {
  if (typeof string !== 'string') return string;
  const spaced = string.replace(/[_-]/g, ' ');
  return spaced.replace(/\w\S*/g, (word) => word.charAt(0).toUpperCase() + word.substr(1).toLowerCase());
}

/** The text with a replacement for emojis and other symbols. */
function scrubEmojis(text, replacement) {
  if (!text) return text;
  if (replacement == '') {
    console.warn(
      'Removing characters from a string may create injection vulnerabilities;',
      "It's better to replace than remove.",
      'See https://www.unicode.org/reports/tr36/#Deletion_of_Noncharacters'
    );
  }
  const symbols = /\uFE0F|[\u00a9\u00ae\u2000-\u3300]|[\ud83c-\ud83e][\ud000-\udfff]/g;
  return text.replace(symbols, replacement || replacement == '' ? replacement : '\uFFFD');
}

/** Two objects: the properties that are not among `names`, and those that are. */
function splitKeys(object, names) {
  const parts = [{}, {}];
  for (const [key, value] of Object.entries(object)) define(parts[names.includes(key) ? 1 : 0], key, value);
  return parts;
}

function chunk(items, size) {
  if (!(size >= 1)) throw new RangeError(`chunk needs a size of 1 or more, not ${size}`);
  const chunks = [];
  for (let start = 0; start < items.length; start += size) chunks.push(items.slice(start, start + size));
  return chunks;
}

/** Groups objects by the value at a path of keys. */
const group = (objects, keyPath, callback = (state) => state) => (state) => {
  const [items, path] = resolved(state, [objects, keyPath]);
  const { get, groupBy, omit } = lodash();
  return callback({ ...Object(state), data: omit(groupBy(items, (item) => get(item, path)), [undefined]) });
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
    put(state, cursorKey, format?.(date) ?? date.toISOString());
    console.log(`Setting ${cursorKey} "${position}" to: ${format ? state[cursorKey] : library('date-fns').format(date, 'HH:mm d MMM yyyy (OOO)')}`);
    return state;
  }
  put(state, cursorKey, format?.(position) ?? position);
  console.log(`Setting ${cursorKey} to:`, state[cursorKey]);
  return state;
};

/** Runs an operation and keeps its data under another key. */
const as = (key, operation) => async (state) => {
  const [name, before] = [resolved(state, key), state.data];
  mustBeFunction(operation, 'operation');
  const result = await operation(state);
  if (result === undefined || result === null) {
    throw new TypeError(`Cannot destructure property 'data' of 'result' as it is ${result}.`);
  }
  const { data, ...others } = result;
  put(state, name, data);
  put(state, 'data', before);
  return { ...Object(state), ...others };
};

const log = (...values) => (state) => {
  console.log(...resolved(state, values));
  return state;
};

const debug = (...values) => (state) => {
  console.debug(...resolved(state, values));
  return state;
};

/** The one library that an import names, which cannot wait for its use. */
const _ = import.meta.importsLodash() ? lodash() : undefined;

const dateFns = {
  format: (...values) => library('date-fns').format(...values),
  parse: (...values) => library('date-fns').parse(...values),
};

export {
  _,
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
