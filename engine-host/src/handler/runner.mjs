// Runs one handler in Node, for the host at the other end of descriptor 3: lines of JSON in both directions.
import { execFileSync } from 'node:child_process';
import { createRequire, register } from 'node:module';
import { Socket } from 'node:net';
import { pathToFileURL } from 'node:url';
import { Script } from 'node:vm';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';

const { file, host, hooks, client } = JSON.parse(process.argv[1]);
process.argv.length = 1;

const socket = new Socket({ fd: 3, readable: true, writable: true });
const say = (message) => socket.write(`${JSON.stringify(message)}\n`);

/** An error that says in which way the job failed. */
globalThis.JobError = class JobError extends Error {
  constructor(message, type, options) {
    super(message, options);
    if (type !== undefined) this.JobError = type;
  }
};

const json = (value) => {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined;
  }
};

/** Something thrown, as it is stored. */
const describe = (thrown, depth = 0) => {
  if (!(thrown instanceof Error)) return thrown === undefined ? null : JSON.parse(json(thrown) ?? json(String(thrown)));
  const { name, message, stack, cause } = thrown;
  const own = Object.fromEntries(Object.entries(thrown).filter(([, value]) => json(value) !== undefined));
  const more = cause === undefined || depth > 4 ? {} : { cause: describe(cause, depth + 1) };
  return { ...own, name: String(name), message: String(message), stack: String(stack ?? ''), ...more };
};

const waiting = new Map();
let lastCall = 0;
const ask = (call) =>
  new Promise((resolve) => {
    lastCall += 1;
    waiting.set(lastCall, resolve);
    say({ ask: [lastCall, call] });
  });

// What the handler does to the globals is no concern of this.
const { setTimeout: wait } = globalThis;
const sleep = (milliseconds) => new Promise((resolve) => wait(resolve, milliseconds));
const { oada, log, settled } = new Script(client, { filename: 'openfn:client' }).runInThisContext()({
  ask,
  sleep,
  describe,
});

const abort = new AbortController();
let hasEnded = false;

const end = async (ending) => {
  if (hasEnded) return;
  // What JSON cannot say is the handler's error, and comes back here as one.
  const text = JSON.stringify(ending);
  hasEnded = true;
  await settled();
  socket.write(`${text}\n`);
};
const fail = (error) => end({ threw: describe(error) });
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);

const { port1: loads, port2: tellLoads } = new MessageChannel();
register(`data:text/javascript,${encodeURIComponent(hooks)}`, {
  data: { host, loads: tellLoads },
  transferList: [tellLoads],
});
// The same for what CommonJS requires.
const { _extensions: extensions, _cache: required } = createRequire(import.meta.url)('node:module');
extensions['.ts'] = extensions['.cts'] = (module, filename) => {
  module._compile(execFileSync(host, ['strip-types', filename], { encoding: 'utf8' }), filename);
};

/** The handler and its other exports. A module that was compiled to CommonJS has its default export in its default one. */
const load = async () => {
  const module = await import(pathToFileURL(file));
  const isNested = typeof module.default !== 'function' && typeof module.default?.default === 'function';
  const { default: handler, ...exports } = isNested ? module.default : module;
  if (typeof handler !== 'function') throw new TypeError('its default export must be a function');
  return { handler, exports };
};

/** The files that were loaded beside the handler's own, without packages. */
const loadedFiles = () => {
  const files = new Set(Object.keys(required));
  for (let load; (load = receiveMessageOnPort(loads)) !== undefined; ) files.add(load.message);
  return [...files].filter((it) => it !== file && !it.includes('/node_modules/'));
};

/** Where a module threw, or where V8 could not read on, which the error itself does not say. */
const placeOf = async (error) => {
  const theirs = String(error?.stack ?? '').split('\n').filter((line) => !/node:|\[eval/.test(line));
  const [place] = /(file:\/\/)?\/[^\s()]+:\d+/.exec(theirs.join('\n')) ?? [];
  if (place !== undefined || !(error instanceof SyntaxError)) return place;
  const { Session } = await import('node:inspector');
  const session = new Session();
  session.connect();
  const post = (method, parameters) =>
    new Promise((resolve, reject) => {
      session.post(method, parameters, (refusal, answer) => (refusal === null ? resolve(answer) : reject(refusal)));
    });
  const unread = [];
  session.on('Debugger.scriptFailedToParse', ({ params }) => unread.push(params.url));
  await post('Debugger.enable');
  await post('Debugger.setSkipAllPauses', { skip: true });
  await import(`${pathToFileURL(file)}?again`).catch(() => {});
  globalThis.unreadable = error;
  const { result } = await post('Runtime.evaluate', { expression: 'globalThis.unreadable' });
  const { exceptionDetails } = await post('Runtime.getExceptionDetails', { errorObjectId: result.objectId });
  session.disconnect();
  return `${unread[0]?.replace('?again', '') ?? 'a module that it imports'}:${exceptionDetails.lineNumber + 1}`;
};

let loaded;
const begin = async ({ job, jobId }) => {
  try {
    const { handler } = await loaded;
    const value = await handler(job, { jobId, log, oada, signal: abort.signal });
    await end({ returned: value });
  } catch (error) {
    await fail(error);
  }
};

const hear = (line) => {
  const { answer, begin: work, abort: reason } = JSON.parse(line);
  if (answer !== undefined) {
    const [id, text] = answer;
    waiting.get(id)?.(text);
    waiting.delete(id);
  }
  if (work !== undefined) void begin(work);
  if (reason !== undefined) abort.abort(Object.assign(new Error(reason), { name: 'AbortError' }));
};

let rest = '';
socket.setEncoding('utf8');
socket.on('data', (data) => {
  const lines = (rest + data).split('\n');
  rest = lines.pop();
  lines.forEach(hear);
});
socket.on('end', () => process.exit(0));

loaded = load();
loaded.then(
  ({ exports }) => say({ ready: JSON.parse(json(exports) ?? '{}'), files: loadedFiles() }),
  async (error) => {
    const place = await placeOf(error).catch(() => undefined);
    const { name = 'Error', message = String(error) } = error ?? {};
    say({ unusable: `${name}: ${message}${place === undefined ? '' : ` (${place})`}` });
  },
);
