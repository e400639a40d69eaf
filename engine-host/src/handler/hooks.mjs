// What Node loads beside JavaScript: TypeScript, whose types the host's program strips. Runs on Node's loader thread.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const TYPED = /\.[cm]?ts$/;
const MOST_BYTES = 64 * 1024 * 1024;

let host;
let loads;
export const initialize = (data) => {
  ({ host, loads } = data);
};

/** TypeScript imports `./other.js` and means `./other.ts`. */
export const resolve = async (specifier, context, next) => {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND' || !/^(\.{0,2}\/|file:)/.test(specifier)) throw error;
    const others = [specifier.replace(/\.([cm]?)js$/, '.$1ts'), `${specifier}.ts`, `${specifier}/index.ts`];
    for (const other of others.filter((it) => it !== specifier)) {
      try {
        return await next(other, context);
      } catch {
        // The first error tells more.
      }
    }
    throw error;
  }
};

export const load = async (url, context, next) => {
  if (url.startsWith('file:')) loads.postMessage(fileURLToPath(url));
  if (!url.startsWith('file:') || !TYPED.test(new URL(url).pathname)) return next(url, context);
  const options = { encoding: 'utf8', maxBuffer: MOST_BYTES, stdio: ['ignore', 'pipe', 'pipe'] };
  let source;
  try {
    source = execFileSync(host, ['strip-types', fileURLToPath(url)], options);
  } catch (error) {
    throw new SyntaxError(String(error.stderr || error.message).trim());
  }
  return { format: url.endsWith('.cts') ? 'commonjs' : 'module', source, shortCircuit: true };
};
