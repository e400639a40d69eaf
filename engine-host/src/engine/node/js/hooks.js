// What the engine calls, and the globals of a job.

const parse = JSON.parse;

// The console that V8 adds to every context shows nothing to anybody.
deleteProperty(globalThis, 'console');

/** A stack that is put together by nobody but V8: code cannot make it pass for another's. */
defineProperty(BaseError, 'prepareStackTrace', record({ get: () => undefined, set() {}, configurable: false }));
BaseError.stackTraceLimit = 30;

function define(name, value) {
  defineProperty(globalThis, name, record({ value, writable: true, enumerable: false, configurable: true }));
}

/** Begins a job, before any code of its own: sets its globals. `remove` has what leaves the state at the end, a line each. */
function begun(stateText, remove, metaText) {
  let start = 0;
  while (start < remove.length) {
    let end = indexOf(remove, '\n', start);
    if (end < 0) end = remove.length;
    push(removed, slice(remove, start, end));
    start = end + 1;
  }
  const state = parse(stateText);
  const all = { console: makeConsole('JOB'), Buffer, state, ...timerGlobals };
  const names = keys(all);
  for (let i = 0; i < names.length; i += 1) define(names[i], all[names[i]]);
  describeRun(parse(metaText));
  return state;
}

/** Begins a condition. */
function asked(stateText, upstreamStepId) {
  define('state', parse(stateText));
  define('upstreamStepId', upstreamStepId);
}

/** The error of an import that is refused. */
const refused = (message) => raised('import', 'ImportError', message);

/** Describes what linking the job's module threw: names that a module does not export are import errors. */
function linkError(error) {
  const message = attempt(() => text(error.message)) ?? '';
  const missing = matches(/^The requested module '(.*)' does not provide an export named '(.*)'$/s, message);
  return describe(missing === null ? error : refused(`${missing[1]} does not export ${missing[2]}`));
}

return {
  adaptorConsole: makeConsole('ADA'),
  adopt: async (evaluation, exports) => {
    await adopt(evaluation, exports);
    host.ended();
  },
  asked,
  begin: async (evaluation, exports, state) => {
    await begin(evaluation, exports, state);
    host.ended();
  },
  begun,
  describe: (error) => describe(error),
  globalsError,
  linkError,
  outcome,
  refused,
  uncaught,
};
