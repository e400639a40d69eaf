// Loads adaptors and keeps them: by their specifier, `name@version`, with the names that they export or why they could
// not be loaded.

const vm = require('node:vm');
const adaptors = new Map();

/** What a script's own `import()` may load. */
const importing = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;

/** What loads the modules that were put off. */
const putOff = [];

/** A module that is loaded when something of it is first used. */
function lazily(load) {
  let module;
  const loaded = () => (module ??= load());
  putOff.push(loaded);
  return new Proxy(Object.create(null), {
    get: (_, name) => loaded()[name],
    set: (_, name, value) => Reflect.set(loaded(), name, value),
    has: (_, name) => name in loaded(),
    ownKeys: () => Reflect.ownKeys(loaded()),
    getOwnPropertyDescriptor: (_, name) => {
      const property = Reflect.getOwnPropertyDescriptor(loaded(), name);
      return property && { ...property, configurable: true };
    },
  });
}

// The network client takes longer to load than all the rest, and holds what cannot be in a snapshot.
const CLIENT = /(var \w+ = )(?:(require_undici\d*\(\))|(__toESM\(require_undici\d*\(\)(?:, 1)?\)));/g;

/** A bundle's source, in which the network client is loaded when it is first used. `name` is what does that. */
const eased = (source, name) =>
  source.replace(CLIENT, (_, variable, plain, wrapped) => `${variable}${name}(() => ${plain ?? wrapped});`);

/** Evaluates a CommonJS file of one piece. `required` is what its `require` does. */
function evaluateBundle(file, source, required, cachedData) {
  const options = { filename: file, cachedData, importModuleDynamically: importing };
  const names = 'exports, require, module, __filename, __dirname, __lazily';
  const script = new vm.Script(`(function (${names}) {${eased(source, '__lazily')}\n})`, options);
  const module = { exports: {}, id: file, filename: file, loaded: false, children: [], paths: [] };
  const folder = file.slice(0, file.lastIndexOf('/'));
  apply(script.runInThisContext(), module.exports, [module.exports, required, module, file, folder, lazily]);
  module.loaded = true;
  return { exports: module.exports, script };
}

/** The names that can be imported, but for the default export, which there always is. */
function namesOf(exports) {
  const isObject = (typeof exports === 'object' && exports !== null) || typeof exports === 'function';
  return isObject ? Object.keys(exports).filter((name) => name !== 'default' && name !== '__esModule') : [];
}

function keep(specifier, exports) {
  adaptors.set(specifier, { exports, names: namesOf(exports) });
}

// Those of Node's own modules that hold what cannot be in a snapshot.
const ATTACHED = /^(?:node:)?(?:http|https|http2|tls)$/;

/** For a snapshot: only what is built in can be required while it is made. */
function addBundle({ specifier, bundle }) {
  const required = (name) => (ATTACHED.test(name) ? lazily(() => require(name)) : require(name));
  keep(specifier, evaluateBundle(bundle, fs.readFileSync(bundle, 'utf8'), required).exports);
}

/** Uses a module that was put off. A bundle may itself put off what is in it until something of it is read. */
function touch(loaded) {
  const module = loaded();
  for (const name of Object.keys(module).slice(0, 1)) void module[name];
}

/** Loads what was put off, one at a time, unless something else is to be done. */
function catchUp(isBusy) {
  const next = putOff.shift();
  if (next === undefined || isBusy()) return;
  try {
    touch(next);
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
async function load({ specifier, folder, bundle, cache }) {
  if (adaptors.has(specifier)) return undefined;
  try {
    if (bundle === null) {
      keep(specifier, await loadInstalled(folder));
      return undefined;
    }
    const { createRequire } = require('node:module');
    const source = fs.readFileSync(bundle, 'utf8');
    const { exports, script } = evaluateBundle(bundle, source, createRequire(bundle), codeOf(cache));
    keep(specifier, exports);
    return script;
  } catch (error) {
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
