// The module `@openfn/runtime`, which the compiler imports from.

/**
 * One operation of three: `operation`, what is chained to its result, and what handles an error of either kind. The
 * continuation gets a promise and returns one; the handler gets the error and the state that the operation got.
 */
export function _defer(operation, chain = (promise) => promise, handle) {
  return (state) => {
    const result = new Promise((resolve) => resolve(operation(state)));
    return handle === undefined ? chain(result) : chain(result.catch((error) => handle(error, state)));
  };
}

/** What an object takes of a value that is spread into it, for engines that take nothing of a text. */
export const _spread = (value) => (typeof value === 'string' ? Object(value) : value);

const { defineProperty, has } = Reflect;

const setGlobal = (name, value) =>
  defineProperty(globalThis, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });

/** What an assignment to a name does that nothing declares: a function becomes a global, and takes its name. */
export const _undeclared = new Proxy(Object.create(null), {
  __proto__: null,
  set(_, name, value) {
    const isKnown = has(globalThis, name);
    if (typeof value === 'function') {
      if (value.name === '') defineProperty(value, 'name', { __proto__: null, value: name, configurable: true });
      if (!isKnown) return setGlobal(name, value);
    } else if (!isKnown) {
      throw new ReferenceError(`${name} is not defined`);
    }
    globalThis[name] = value;
    return true;
  },
});
