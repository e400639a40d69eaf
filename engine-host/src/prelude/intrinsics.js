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

const mapDelete = unbound(Map.prototype.delete);
const mapGet = unbound(Map.prototype.get);
const mapSet = unbound(Map.prototype.set);
const mapValues = unbound(Map.prototype.values);
const nextValue = unbound(getPrototypeOf(new Map().values()).next);
const setAdd = unbound(Set.prototype.add);
const setDelete = unbound(Set.prototype.delete);
const setHas = unbound(Set.prototype.has);
const weakGet = unbound(WeakMap.prototype.get);
const weakSet = unbound(WeakMap.prototype.set);
const matches = unbound(RegExp.prototype.exec);
const indexOf = unbound(String.prototype.indexOf);
const slice = unbound(String.prototype.slice);
const endsWith = unbound(String.prototype.endsWith);
const startsWith = unbound(String.prototype.startsWith);
const wellFormed = unbound(String.prototype.toWellFormed);

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
