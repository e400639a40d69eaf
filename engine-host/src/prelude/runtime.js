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
