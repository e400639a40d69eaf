// Runs the operations of a job, one after the other, and keeps how the job ended until the engine asks.

/** How it ended: a record of `state` and `webhookResponse` (JSON text or undefined), or of `thrown` and `state`. */
let ending;
/** Index of the operation under way. */
let current;
/** Names of what is taken out of the state at the end. */
const removed = list();
/** Promises that were rejected and have no handler, with the reason. */
const unhandled = new Map();

function warnOfNoState(index) {
  const message = `Warning: operation ${index + 1} got no state: did the operation before it return one?`;
  if (host.wants('R/T', 'warn')) host.log('R/T', 'warn', stringify(setPrototypeOf([message], null)));
}

/** An operation that notes that it runs, and never gets nothing for a state. */
const tracked = (operation, index) => async (state) => {
  current = index;
  if (state === undefined || state === null) {
    warnOfNoState(index);
    return operation({});
  }
  return operation(state);
};

function operationsOf(exported) {
  if (!isArray(exported)) {
    throw raised('exports', 'InvalidExportsError', 'Invalid exports in job expression: exports must be an array');
  }
  const operations = list();
  for (let i = 0; i < exported.length; i += 1) {
    const operation = exported[i];
    if (typeof operation !== 'function') {
      current = i;
      throw raised('operation', 'InvalidOperationError', `Invalid operation at statement ${i}`);
    }
    push(operations, tracked(operation, i));
  }
  return operations;
}

/** Passes `initial` through the default export, by the adaptor's own `execute` if it has one. */
async function execute(exports, initial) {
  const operations = operationsOf(exports.default);
  const { execute: custom } = exports;
  if (typeof custom === 'function') return apply(custom, undefined, operations)(initial);
  let state = initial;
  for (let i = 0; i < operations.length; i += 1) state = await operations[i](state);
  return state;
}

/** The state without the named properties. */
function without(state, names) {
  let rest = state;
  for (let i = 0; i < names.length; i += 1) {
    if (!hasOwn(rest, names[i])) continue;
    deleteProperty(rest, names[i]);
    if (!hasOwn(rest, names[i])) continue;
    // It is frozen, or pretends to be.
    rest = { ...rest };
    deleteProperty(rest, names[i]);
  }
  return rest;
}

function returned(state) {
  if (!isObject(state)) return record({ state: toJson(state) });
  const webhookResponse = hasOwn(state, 'webhookResponse') ? toJson(state.webhookResponse) : undefined;
  return record({ state: toJson(without(without(state, removed), ['webhookResponse'])), webhookResponse });
}

const fail = (error, state) => {
  ending ??= record({ thrown: describe(error, current), state });
};

/** Follows a job's module from its evaluation to the result of its last operation. */
async function begin(evaluation, exports, initial) {
  try {
    await evaluation;
    const state = await execute(exports, initial);
    ending ??= returned(state);
  } catch (error) {
    // Operations may have changed the state that they began with, and whoever handles the error is to see it.
    fail(error, attempt(() => returned(initial).state));
  }
}

/** Describes what kept the module from its evaluation whose exports are globals. */
function globalsError(error) {
  messagePrefix = GLOBALS_PREFIX;
  return linkError(error);
}

const GLOBALS_PREFIX = '[globals] ';

/** Makes `meta` a global that jobs can read and not change. */
function describeRun(meta) {
  const names = keys(meta);
  for (let i = 0; i < names.length; i += 1) if (isObject(meta[names[i]])) freeze(meta[names[i]]);
  const global = record({ value: freeze(meta), writable: false, enumerable: false, configurable: true });
  defineProperty(globalThis, 'meta', global);
}

/** Makes the exports of a module globals, when it is evaluated. */
async function adopt(evaluation, exports) {
  try {
    await evaluation;
    const names = keys(exports);
    for (let i = 0; i < names.length; i += 1) {
      const global = record({ value: exports[names[i]], writable: true, enumerable: true, configurable: true });
      if (names[i] !== 'default') defineProperty(globalThis, names[i], global);
    }
    ending ??= record({});
  } catch (error) {
    messagePrefix = GLOBALS_PREFIX;
    fail(error);
  }
}

/** Whether the job ended by something that nobody waits for. */
let isUncaught = false;

/** Something was thrown that nobody waits for. The first of them ends the job. */
function uncaught(error) {
  if (!isUncaught) ending = record({ thrown: describe(error, current, 'uncaught') });
  isUncaught = true;
}

/** Takes note of a rejected promise without a handler, and of one that got a handler after all. */
function rejected(promise, reason, handled) {
  if (handled) mapDelete(unhandled, promise);
  else mapSet(unhandled, promise, record({ reason }));
}

/** To be asked when no promise has anything left to do: how the job ended, if it did. */
function outcome() {
  const { value: first } = nextValue(mapValues(unhandled));
  if (first !== undefined) uncaught(first.reason);
  const result = ending;
  ending = undefined;
  isUncaught = false;
  return result;
}
