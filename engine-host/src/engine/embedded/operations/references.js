// Values that are only known when an operation runs: functions of state, wherever they stand.

const { console } = import.meta;

const isPlain = (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
};

/** `value`, with every function in it replaced by what it makes of `state`. */
function resolved(state, value) {
  if (typeof value === 'function') return resolved(state, value(state));
  if (Array.isArray(value)) return value.map((item) => resolved(state, item));
  if (!isPlain(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(state, item)]));
}

const isThenable = (value) => typeof value?.then === 'function';

/** Continues with a value or a promise of one. Without promises everything stays synchronous. */
const after = (value, next) => (isThenable(value) ? value.then(next) : next(value));

/** Fails where an operation is needed and `value` is none. */
function mustBeOperation(value, user) {
  if (typeof value !== 'function') throw new TypeError(`${user} takes an operation, not ${typeof value}`);
}
