// Makes a new context the one that jobs get: no code from strings, no globals but the language's own, and stacks that
// tell the engine, but not the job, which module a frame belongs to.

const functionKinds = [
  function () {},
  async function () {},
  function* () {},
  async function* () {},
];

function refuseCode() {
  throw raised('evaluation', 'EvalError', 'Code generation from strings disallowed for this context');
}

// The four constructors are only reachable by their global name and through `constructor`.
for (let i = 0; i < functionKinds.length; i += 1) {
  const prototype = getPrototypeOf(functionKinds[i]);
  const { name } = prototype.constructor;
  const target = function () { refuseCode(); };
  target.prototype = prototype;
  // As text, a bound function is native code.
  const refusing = target.bind();
  defineProperty(refusing, 'name', { value: name });
  defineProperty(refusing, 'length', { value: 1 });
  defineProperty(refusing, 'prototype', { value: prototype, writable: false });
  defineProperty(prototype, 'constructor', { value: refusing });
  if (name === 'Function') defineProperty(globalThis, name, { value: refusing });
  else setPrototypeOf(refusing, globalThis.Function);
}
defineProperty(globalThis, 'eval', { value: defineProperty(((code) => (isText(code) ? refuseCode() : code)).bind(), 'name', { value: 'eval' }) });

// What QuickJS reports with a class of its own is a limit that was reached, which other engines call a RangeError.
const limit = InternalError.prototype;
setPrototypeOf(limit, RangeError.prototype);
for (const name of ['name', 'message', 'constructor']) delete limit[name];
delete globalThis.InternalError;
delete globalThis.queueMicrotask;

/** The stack as the engine keeps it, which no code can change. */
const keptStack = unbound(Object.getOwnPropertyDescriptor(BaseError.prototype, 'stack').get);
const assignStack = Object.getOwnPropertyDescriptor(BaseError.prototype, 'stack').set;

/** The lines of a stack: `at name (file:line:column)`, `at name (native)`, or `at file:line:column` of a parser. */
function framesOf(error) {
  const frames = list();
  const stack = keptStack(error);
  if (!isText(stack)) return frames;
  let start = 0;
  while (start < stack.length) {
    let end = indexOf(stack, '\n', start);
    if (end < 0) end = stack.length;
    const line = slice(stack, start, end);
    start = end + 1;
    const match = matches(/^ {4}at (?:(.*) \(([^()]*):(\d+):(\d+)\)|([^()]*):(\d+):(\d+))$/, line);
    if (match !== null) push(frames, frame(match[1], match[2] ?? match[5], match[3] ?? match[6], match[4] ?? match[7]));
  }
  return outsideOfConstructors(frames, attempt(() => error.constructor.name));
}

/** The frames less those of the constructors that made an error of a class of the job's own, down to the class's. */
function outsideOfConstructors(frames, name) {
  const shown = `${name} (`;
  for (let i = 0; i < frames.length && frames[i].place !== ''; i += 1) {
    if (!startsWith(frames[i].shown, shown)) continue;
    const rest = list();
    for (let k = i + 1; k < frames.length; k += 1) push(rest, frames[k]);
    return rest;
  }
  return frames;
}

// Modules of the engine have a name that ends with a token, so that a function's name cannot pass for a frame of theirs.
function frame(name, file, line, column) {
  let place = '';
  let shown = file;
  if (file === 'job' || file === 'globals') place = 'job';
  else if (endsWith(file, host.token)) {
    shown = slice(file, 0, -host.token.length);
    place = startsWith(shown, '@openfn/language-') ? 'adaptor' : 'engine';
  }
  const where = `${shown}:${line}:${column}`;
  return record({
    place,
    line: file === 'job' ? +line : 0,
    column: +column,
    shown: name === undefined || name === '<anonymous>' ? where : `${name} (${where})`,
  });
}

function shownStack(error) {
  let stack = attempt(() => text(error)) ?? 'Error';
  const frames = framesOf(error);
  for (let i = 0; i < frames.length; i += 1) {
    if (frames[i].place !== 'engine') stack += `\n    at ${frames[i].shown}`;
  }
  return stack;
}

BaseError.stackTraceLimit = 30;
for (const name of ['prepareStackTrace', 'stackTraceLimit', 'captureStackTrace']) delete BaseError[name];
defineProperty(BaseError, 'captureStackTrace', {
  value: function captureStackTrace(target) {
    defineProperty(target, 'stack', record({ value: shownStack(new BaseError()), writable: true, configurable: true }));
  },
  writable: true,
  configurable: true,
});
defineProperty(BaseError.prototype, 'stack', {
  get() {
    return isError(this) ? shownStack(this) : undefined;
  },
  set: assignStack,
});
