// What the engine calls, and the globals of a job.

/** Begins a job, before any code of its own: sets its globals, and keeps the names that leave its state at the end. */
function globals(state, remove, meta) {
  for (let i = 0; i < remove.length; i += 1) push(removed, remove[i]);
  const all = { console: makeConsole('JOB'), Buffer, state, ...timerGlobals };
  const names = keys(all);
  for (let i = 0; i < names.length; i += 1) {
    const global = record({ value: all[names[i]], writable: true, enumerable: false, configurable: true });
    defineProperty(globalThis, names[i], global);
  }
  describeRun(meta);
}

/** The error of an import that is refused. */
const refused = (message) => raised('import', 'ImportError', message);

/** The error of a name that the core operations lack. */
const lacking = (name) => refused(host.lacking(name));

/** Describes what linking the job's module threw: names that a module does not export are import errors. */
function linkError(error) {
  const missing = matches(/^Could not find export '(.*)' in module '(.*)'$/s, attempt(() => text(error.message)) ?? '');
  return describe(missing === null || !endsWith(missing[2], host.token) ? error : lacking(missing[1]));
}

return {
  Buffer,
  adaptorConsole: makeConsole('ADA'),
  adopt,
  begin,
  describe: (error) => describe(error),
  fire,
  globals,
  globalsError,
  lacking,
  linkError,
  outcome,
  refused,
  rejected,
  reworded,
  wait,
};
