// What Node does for its host: gets ready, then runs what it is told, one thing at a time.

let isConsoleTaken = false;

/** Lines of adaptors go to the run's log while a job or a condition is under way, else where Node writes to. */
function takeOverConsole() {
  if (isConsoleTaken) return;
  isConsoleTaken = true;
  for (const level of ['debug', 'log', 'info', 'success', 'always', 'warn', 'error']) {
    const original = console[level] ?? console.log;
    console[level] = (...values) => {
      if (current === undefined) apply(original, console, values);
      else apply(current.hooks.adaptorConsole[level], undefined, values);
    };
  }
}

/** Loads what is not there yet and says what there is. */
async function prepare({ adaptors: wantedAdaptors, caches }) {
  const scripts = [];
  for (const adaptor of wantedAdaptors) scripts.push([adaptor.specifier, await load(adaptor, caches ? [] : undefined)]);
  const known = wantedAdaptors.map(({ specifier }) => {
    const { names, failed, reads } = adaptors.get(specifier);
    return { specifier, names, failed, reads };
  });
  if (caches) {
    // With the code of what is loaded later.
    for (const load of putOff.splice(0)) load();
    for (const [specifier, script] of scripts) if (script !== undefined) send('d', specifier, script.createCachedData());
  }
  send('y', JSON.stringify({ version: process.versions.node, adaptors: known }));
  spare ??= makeRoom();
  if (wantedAdaptors.some(({ specifier }) => !specifier.startsWith(COMMON))) setTimeout(catchUp, IDLE_MS, isBusy);
}

/** Its network client is seldom used. */
const COMMON = '@openfn/language-common@';

/** Who has waited for a run for so many milliseconds has time to load what it may need. */
const IDLE_MS = 100;

let used = false;
const isBusy = () => used;

function serve({ isCopy = false } = {}) {
  if (isCopy) forgetRandomBytes();
  // Enough to get from what Node does for an adaptor to the adaptor.
  Error.stackTraceLimit = 30;
  process.on('uncaughtException', uncaught);
  process.on('unhandledRejection', uncaught);
  takeOverConsole();
  // Node's own client, of which the same holds: `fetch` itself would load it at its first call only.
  putOff.push(() => globalThis.Headers);
  listen((kind, fields) => {
    used ||= kind !== 'p';
    if (kind === 'p') prepare(JSON.parse(fields[0])).catch(broken);
    else if (kind === 'j') runJob(JSON.parse(fields[0]), fields[1], fields[2], fields[3]).catch(broken);
    else if (kind === 'v') prove(JSON.parse(fields[0])).catch(broken);
    else if (kind === 't') test(fields[0], fields[1], fields[2]).catch(broken);
  });
}

/** A fault of the engine's own. */
function broken(error) {
  send('f', error instanceof Error ? `${error.stack}` : String(error));
}

return { addBundle, serve, template, unwatch };
