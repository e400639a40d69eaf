// Bundles one package, by esbuild. Arguments: the folder where esbuild is installed, what to import, the file to make, and
// packages to leave outside. Leaves esbuild's account of it in account.json.

const { writeFileSync } = require('node:fs');
const { createRequire } = require('node:module');

const [tool, imported, outfile, ...outside] = process.argv.slice(2);
const esbuild = createRequire(`${tool}/`)('esbuild');

// No start-up snapshot can hold what has sockets, threads or hooks behind it. Such modules are loaded when they are first
// used: a job that makes no request does not pay for them either.
const LATE_BUILTINS = [
  'async_hooks', 'child_process', 'cluster', 'crypto', 'dgram', 'diagnostics_channel', 'dns', 'dns/promises', 'http',
  'http2', 'https', 'inspector', 'net', 'perf_hooks', 'readline', 'tls', 'tty', 'worker_threads', 'zlib',
];
const LATE_PACKAGES = ['undici'];

/**
 * The source of a module with the names of another, which is loaded when the first of them is read, or when who runs the
 * bundle has nothing else to do.
 */
function standIn(names, original, isPackage) {
  const property = (name) => {
    const key = JSON.stringify(name);
    return `Object.defineProperty(exports, ${key}, { enumerable: true, configurable: true,
      get: () => load()[${key}], set: (value) => { load()[${key}] = value; } });`;
  };
  const head = `let loaded;\nconst load = () => (loaded ??= require(${JSON.stringify(original)}));\n`;
  const offer = isPackage ? "if (typeof __putOff === 'function') __putOff(load);\n" : '';
  return head + offer + names.map(property).join('\n');
}

/** The names of a module, which the stand-in must know before it is loaded. */
const namesOf = (original) =>
  Object.keys(require(original)).filter((name) => name !== 'default' && name !== '__esModule');

const late = {
  name: 'late',
  setup(build) {
    const one = (names) => new RegExp(`^(node:)?(${names.join('|')})$`);
    build.onResolve({ filter: one(LATE_BUILTINS) }, ({ path, namespace }) =>
      namespace === 'late' ? { path, external: true } : { path: path.replace(/^node:/, ''), namespace: 'late' },
    );
    build.onResolve({ filter: one(LATE_PACKAGES) }, async ({ path, resolveDir, pluginData }) => {
      if (pluginData === 'original') return undefined;
      const found = await build.resolve(path, { resolveDir, kind: 'require-call', pluginData: 'original' });
      if (found.errors.length > 0) return { errors: found.errors };
      return { path: found.path, namespace: 'late', pluginData: { original: found.path } };
    });
    build.onLoad({ filter: /.*/, namespace: 'late' }, ({ path, pluginData }) => {
      const original = pluginData?.original ?? `node:${path}`;
      return { contents: standIn(namesOf(original), original, pluginData !== undefined), resolveDir: process.cwd() };
    });
  },
};

esbuild
  .build({
    stdin: { contents: `export * from ${JSON.stringify(imported)};`, resolveDir: process.cwd(), sourcefile: 'entry.mjs' },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    // What the oldest Node that is supported understands.
    target: 'node20',
    keepNames: true,
    // V8 keeps the source of what it may yet compile, two bytes a character if a single one is beyond Latin-1.
    minifyWhitespace: true,
    charset: 'ascii',
    legalComments: 'none',
    logLevel: 'error',
    color: false,
    metafile: true,
    external: outside,
    // A module that asks where it is gets the place of the bundle.
    define: { 'import.meta.url': '__bundle_url' },
    banner: { js: "const __bundle_url = require('node:url').pathToFileURL(__filename).href;" },
    plugins: [late],
  })
  .then(
    ({ metafile }) => writeFileSync('account.json', JSON.stringify(metafile)),
    () => process.exit(1), // It has printed why.
  );
