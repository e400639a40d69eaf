// Values that are only known when an operation runs: functions of state, wherever they stand.

const { Buffer, console } = import.meta;

/** `value`, with every function in it replaced by what it makes of `state`. Objects become plain ones of their keys. */
function resolved(state, value) {
  if (typeof value === 'function') return resolved(state, value(state));
  if (Array.isArray(value)) return value.map((item) => resolved(state, item));
  if (typeof value !== 'object' || value === null) return value;
  if (Buffer.isBuffer(value) || value.constructor?.name === 'RegExp' || value.pipeTo || value.pipe) return value;
  return Object.fromEntries(Object.keys(value).map((key) => [key, resolved(state, value[key])]));
}

/** Fails in V8's words where `value` is not a function. */
function mustBeFunction(value, name) {
  if (typeof value !== 'function') throw new TypeError(`${name} is not a function`);
}

/** What of a value is spread into an object: of a text, its characters. */
const spread = (value) => ({ ...Object(value) });

/** Sets a property of a state; one that is no object stays as it is. */
function put(state, key, value) {
  if (Object(state) === state || state === undefined || state === null) state[key] = value;
}

/** Gives an object a property of its own, whatever its name. */
function define(object, key, value) {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}
