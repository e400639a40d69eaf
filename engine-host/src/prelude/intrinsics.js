// The prelude is one function body, made of the files of this folder and those that an engine adds. It runs before any
// code of the user's, keeps what it needs of the language's own objects, and never asks a prototype for a method
// afterwards: no iteration, no spreading of arrays, no destructuring of them, because user code may have changed all of that.

const { apply, deleteProperty } = Reflect;
const { create, defineProperty, freeze, getPrototypeOf, hasOwn, keys, setPrototypeOf } = Object;
const { isArray } = Array;
const { stringify } = JSON;
const BaseError = Error;
const { isError: isBaseError } = Error;
const BaseSet = Set;
const text = String;

/** Turns a method into a function that takes the receiver first. */
const unbound = (method) => (self, ...args) => apply(method, self, args);

/** What takes methods of a prototype for later, by their names, as functions that take the receiver first. */
const methodsOf = (prototype) => new Proxy(prototype, { get: (methods, name) => unbound(methods[name]) });

const { delete: mapDelete, get: mapGet, set: mapSet, values: mapValues } = methodsOf(Map.prototype);
const { next: nextValue } = methodsOf(getPrototypeOf(new Map().values()));
const { add: setAdd, delete: setDelete, has: setHas } = methodsOf(Set.prototype);
const { get: weakGet, set: weakSet } = methodsOf(WeakMap.prototype);
const { exec: matches } = methodsOf(RegExp.prototype);
const { endsWith, indexOf, slice, startsWith, toWellFormed: wellFormed } = methodsOf(String.prototype);

// What an engine leaves out of it is not to be found at a prototype that a job can change.
setPrototypeOf(host, null);

const isObject = (value) => (typeof value === 'object' && value !== null) || typeof value === 'function';

/** An array without a prototype, which nobody can listen to. */
const list = () => setPrototypeOf([], null);

/** An object without a prototype. */
const record = (fields) => setPrototypeOf(fields, null);

const push = (items, item) => {
  items[items.length] = item;
};

/** What `read` returns, or undefined when it throws. */
const attempt = (read) => {
  try {
    return read();
  } catch {
    return undefined;
  }
};

/** Whether a value is an error; an engine with errors of more than one realm adds `host.isError(value)`. */
const isError = (value) => {
  if (typeof value !== 'object' || value === null) return false;
  return attempt(() => host.isError?.(value) || isBaseError?.(value) || value instanceof BaseError) === true;
};
