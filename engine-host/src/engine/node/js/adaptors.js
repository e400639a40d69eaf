// Loads adaptors and keeps them: by their specifier, `name@version`, with the names that they export or why they could
// not be loaded.

const vm = require('node:vm');
const adaptors = new Map();

/** What a script's own `import()` may load. */
const importing = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;

/** What loads the modules that bundles do without until they are used. */
const putOff = [];

/**
 * Evaluates a CommonJS file of one piece. `required` is what its `require` does. The file may give `__putOff` what loads
 * a module of its own that it does without until it is used. Where it is watched what the file reads, there are
 * `variables` that may be passed on to jobs.
 */
function evaluateBundle(file, source, required, { cachedData, variables }) {
  const options = { filename: file, cachedData, importModuleDynamically: importing };
  const names = 'exports, require, module, __filename, __dirname, __putOff';
  const text = `(function (${names}) {${source}\n})`;
  const script = new vm.Script(text, options);
  const module = { exports: {}, id: file, filename: file, loaded: false, children: [], paths: [] };
  const folder = file.slice(0, file.lastIndexOf('/'));
  if (variables !== undefined) watch(file, text, variables);
  else if (isWatched()) sources.set(file, text);
  const given = isWatched() ? watchedRequire(required) : required;
  apply(script.runInThisContext(), module.exports, [module.exports, given, module, file, folder, (load) => putOff.push(load)]);
  module.loaded = true;
  return { exports: module.exports, script };
}

/** The names that can be imported, but for the default export, which there always is. */
function namesOf(exports) {
  const isObject = (typeof exports === 'object' && exports !== null) || typeof exports === 'function';
  return isObject ? Object.keys(exports).filter((name) => name !== 'default' && name !== '__esModule') : [];
}

function keep(specifier, exports, reads) {
  adaptors.set(specifier, { exports, names: namesOf(exports), reads });
}

/**
 * For a snapshot: only what is built in can be required while it is made. Returns what the adaptor reads that a snapshot
 * would keep; `unwatch` returns what any of them read later, before the snapshot is made.
 */
function addBundle({ specifier, bundle }, variables) {
  const { exports } = evaluateBundle(bundle, fs.readFileSync(bundle, 'utf8'), require, { variables });
  keep(specifier, exports);
  return seen();
}

/** When what an adaptor put off to do at once is done. */
const soon = () => new Promise((resolve) => setImmediate(setImmediate, resolve));

/** Loads what was put off, one at a time, unless something else is to be done. */
function catchUp(isBusy) {
  const next = putOff.shift();
  if (next === undefined || isBusy()) return;
  try {
    next();
  } catch {
    // Whoever uses it is told.
  }
  setImmediate(catchUp, isBusy);
}

/** Reads the code that V8 made of the bundle when it was installed, if it is there and for this Node. */
function codeOf(cache) {
  if (cache === null) return undefined;
  try {
    return fs.readFileSync(cache);
  } catch {
    return undefined;
  }
}

/** Loads an adaptor from its bundle or, without one, as it is installed. Never throws. */
async function load({ specifier, folder, bundle, cache }, variables) {
  if (adaptors.has(specifier)) return undefined;
  try {
    if (bundle === null) {
      keep(specifier, await loadInstalled(folder));
      return undefined;
    }
    const { createRequire } = require('node:module');
    const source = fs.readFileSync(bundle, 'utf8');
    const options = { cachedData: codeOf(cache), variables };
    const { exports, script } = evaluateBundle(bundle, source, createRequire(bundle), options);
    if (variables !== undefined) await soon();
    keep(specifier, exports, variables === undefined ? undefined : unwatch());
    return script;
  } catch (error) {
    if (variables !== undefined) unwatch();
    adaptors.set(specifier, { failed: reasonOf(error), names: [] });
    return undefined;
  }
}

const reasonOf = (error) => {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return 'it threw something that cannot be shown';
  }
};

async function loadInstalled(folder) {
  const { createRequire } = require('node:module');
  const { pathToFileURL } = require('node:url');
  const entry = entryOf(folder);
  if (isModule(entry)) return importUrl(pathToFileURL(entry).href);
  return createRequire(entry)(entry);
}

/** The file that a package is loaded from. */
function entryOf(folder) {
  const path = require('node:path');
  const description = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
  const { exports } = description;
  const main = exports?.['.'] === undefined ? exports : exports['.'];
  const named = chosen(main) ?? description.main ?? 'index.js';
  const entry = path.resolve(folder, named);
  const spellings = [entry, `${entry}.js`, `${entry}.cjs`, `${entry}.json`, path.join(entry, 'index.js')];
  const found = spellings.find((file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile());
  if (found === undefined) throw new Error(`${folder} has no file ${named}`);
  return found;
}

/** What a package's `exports` gives to Node; CommonJS if it has the choice, as that loads faster. */
function chosen(target) {
  if (typeof target === 'string') return target;
  if (Array.isArray(target)) return target.map(chosen).find((found) => found !== undefined);
  if (typeof target !== 'object' || target === null) return undefined;
  for (const condition of ['require', 'node', 'import', 'default']) {
    const found = chosen(target[condition]);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Whether a file is an ES module, by its ending or what the nearest package.json says. */
function isModule(file) {
  if (file.endsWith('.mjs')) return true;
  if (!file.endsWith('.js')) return false;
  const path = require('node:path');
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).type === 'module';
    } catch (error) {
      if (error.code !== 'ENOENT' || folder === path.dirname(folder)) return false;
    }
  }
}
