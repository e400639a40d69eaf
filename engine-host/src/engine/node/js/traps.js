// Watches what an adaptor reads while it is loaded that differs from one process to the next: randomness, time, the process's
// own number, its environment. A process that begins where another one had loaded the adaptor would have it in common.

const { construct, defineProperty, getOwnPropertyDescriptor, getPrototypeOf } = Reflect;
const { hasOwn } = Object;

/** What has been read, while somebody watches. Traps that an adaptor keeps do no more than what they stand for. */
let touched;
/** What is loaded, as V8 has it, by its file. */
const sources = new Map();
/** Puts things back where traps are. */
const untrap = [];
/** Variables that the operator may pass on to jobs, whether they are set here or not. */
let passedOn = new Set();

function replace(object, name, descriptor) {
  const original = getOwnPropertyDescriptor(object, name);
  if (original?.configurable !== true) return;
  if (defineProperty(object, name, { enumerable: original.enumerable, configurable: true, ...descriptor })) {
    untrap.push(() => defineProperty(object, name, original));
  }
}

/**
 * Code that is in many adaptors and whose work does not depend on what it reads: lodash tells by the time how often it
 * was called, depd shortens paths that it prints.
 */
const HARMLESS = [/stamp ?= ?nativeNow\(\), ?remaining ?=/, /\bbasePath ?= ?process\.cwd\(\)/];

/** What is loaded from a file, as V8 has it. */
function sourceOf(file) {
  if (sources.has(file) || !file?.startsWith('/')) return sources.get(file);
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** Whether the caller of the trap is such code. */
function isHarmless() {
  const { prepareStackTrace, stackTraceLimit } = Error;
  Error.prepareStackTrace = (_, sites) => sites;
  Error.stackTraceLimit = 3;
  const site = new Error().stack[2];
  Error.prepareStackTrace = prepareStackTrace;
  Error.stackTraceLimit = stackTraceLimit;
  const source = sourceOf(site?.getFileName()) ?? '';
  const line = source.split('\n', site?.getLineNumber() ?? 0).at(-1) ?? '';
  const column = site?.getColumnNumber() ?? 0;
  const around = line.slice(Math.max(0, column - 20), column + 30);
  return HARMLESS.some((pattern) => pattern.test(around));
}

const trapped = (original, what) => {
  const trap = function (...values) {
    if (touched !== undefined && !isHarmless()) touched.add(what);
    return new.target === undefined ? apply(original, this, values) : construct(original, values, new.target);
  };
  return Object.defineProperties(trap, Object.getOwnPropertyDescriptors(original));
};

function trapMethods(object, names, shown) {
  for (const name of names) {
    const value = getOwnPropertyDescriptor(object, name)?.value;
    if (typeof value === 'function') replace(object, name, { value: trapped(value, `${shown}.${name}`), writable: true });
  }
}

function trapGetters(object, names, shown) {
  for (const name of names) {
    const original = getOwnPropertyDescriptor(object, name);
    if (original === undefined) continue;
    const get = function () {
      touched?.add(`${shown}.${name}`);
      return original.get === undefined ? original.value : apply(original.get, this, []);
    };
    replace(object, name, { get, set: original.set });
  }
}

const RANDOM = ['randomBytes', 'randomFill', 'randomFillSync', 'randomInt', 'randomUUID', 'randomUUIDv7', 'pseudoRandomBytes',
  'prng', 'rng', 'getRandomValues', 'generateKey', 'generateKeySync', 'generateKeyPair', 'generateKeyPairSync',
  'generatePrime', 'generatePrimeSync', 'createDiffieHellman', 'createECDH', 'getDiffieHellman'];

function trapCrypto(crypto) {
  trapMethods(crypto, RANDOM, 'crypto');
  trapWebCrypto(crypto.webcrypto);
}

function trapWebCrypto(crypto) {
  trapMethods(getPrototypeOf(crypto), RANDOM, 'crypto');
  trapMethods(getPrototypeOf(crypto.subtle), ['generateKey'], 'crypto.subtle');
}

/** Node's own modules are trapped when they are first asked for, so that nothing is loaded that nobody uses. */
const trapModule = {
  crypto: trapCrypto,
  module: trapCreateRequire,
  os: (os) => trapMethods(os, MACHINE, 'os'),
};

const MACHINE = ['cpus', 'freemem', 'homedir', 'hostname', 'loadavg', 'networkInterfaces', 'tmpdir', 'uptime', 'userInfo'];

/** Modules that are trapped. */
const trappedModules = new Set();

/** As `required`, which gives a module for a name. */
function watchedRequire(required) {
  const watching = function (name) {
    const module = apply(required, this, [name]);
    const own = typeof name === 'string' ? name.replace(/^node:/, '') : '';
    if (touched !== undefined && hasOwn(trapModule, own) && !trappedModules.has(own)) {
      trappedModules.add(own);
      trapModule[own](module);
    }
    return module;
  };
  return Object.defineProperties(watching, Object.getOwnPropertyDescriptors(required));
}

function trapCreateRequire(module) {
  const { createRequire } = module;
  replace(module, 'createRequire', { value: (from) => watchedRequire(createRequire(from)), writable: true });
}

function trapDate() {
  const RealDate = Date;
  const trap = new Proxy(RealDate, {
    apply(target) {
      touched?.add('Date');
      return target();
    },
    construct(target, values, newTarget) {
      if (values.length === 0) touched?.add('new Date');
      return construct(target, values, newTarget === trap ? target : newTarget);
    },
  });
  trapMethods(RealDate, ['now'], 'Date');
  replace(globalThis, 'Date', { value: trap, writable: true });
  replace(RealDate.prototype, 'constructor', { value: trap, writable: true });
}

/** A text of no date is one of now. */
function trapDateTexts() {
  const { prototype } = Intl.DateTimeFormat;
  const look = (date) => {
    if (date === undefined) touched?.add('Intl.DateTimeFormat');
  };
  const format = getOwnPropertyDescriptor(prototype, 'format');
  const get = function () {
    const original = apply(format.get, this, []);
    return (date) => (look(date), original(date));
  };
  replace(prototype, 'format', { get, set: undefined });
  const { formatToParts } = prototype;
  const trap = function (date) {
    look(date);
    return apply(formatToParts, this, [date]);
  };
  replace(prototype, 'formatToParts', { value: trap, writable: true });
}

/** A variable that is not set here is not set in any other process either, unless the operator passes it on. */
function trapEnvironment() {
  const { env } = process;
  const look = (name) => {
    if (typeof name === 'string' && (passedOn.has(name) || env[name] !== undefined)) touched?.add(`process.env.${name}`);
  };
  const trap = new Proxy(env, {
    get: (_, name) => (look(name), env[name]),
    has: (_, name) => (look(name), name in env),
    // To list names is to ask for this.
    getOwnPropertyDescriptor: (_, name) => getOwnPropertyDescriptor(env, name),
    ownKeys: () => {
      if (passedOn.size > 0) touched?.add('process.env');
      return Reflect.ownKeys(env);
    },
  });
  replace(process, 'env', { value: trap, writable: true });
}

/** Watches what is read from now on, this source among others. */
function watch(file, source, variables) {
  sources.set(file, source);
  passedOn = new Set(variables);
  if (touched !== undefined) return;
  touched = new Set();
  trapMethods(Math, ['random'], 'Math');
  trapDate();
  trapDateTexts();
  trapEnvironment();
  trapGetters(process, ['pid', 'ppid'], 'process');
  trapMethods(process, ['cpuUsage', 'cwd', 'hrtime', 'memoryUsage', 'resourceUsage', 'uptime'], 'process');
  trapMethods(process.hrtime, ['bigint'], 'process.hrtime');
  trapMethods(getPrototypeOf(performance), ['mark', 'now', 'toJSON'], 'performance');
  trapGetters(getPrototypeOf(performance), ['timeOrigin'], 'performance');
  const { getBuiltinModule } = process;
  if (getBuiltinModule !== undefined) {
    replace(process, 'getBuiltinModule', { value: watchedRequire(getBuiltinModule), writable: true });
  }
  const lazy = getOwnPropertyDescriptor(globalThis, 'crypto');
  let isTrapped = false;
  const get = () => {
    const crypto = apply(lazy.get, globalThis, []);
    if (!isTrapped && touched !== undefined) trapWebCrypto(crypto);
    isTrapped = true;
    return crypto;
  };
  if (lazy?.get !== undefined) replace(globalThis, 'crypto', { get, set: lazy.set });
}

/** Whether somebody watches what is read. */
const isWatched = () => touched !== undefined;

/** What has been read, sorted. */
const seen = () => [...(touched ?? [])].sort();

/** As `seen`, and puts everything back. */
function unwatch() {
  const names = seen();
  touched = undefined;
  sources.clear();
  trappedModules.clear();
  while (untrap.length > 0) untrap.pop()();
  return names;
}

/** Node draws random bytes ahead: those that are in a snapshot would be the same in every process that begins with it. */
function forgetRandomBytes() {
  if (!process.moduleLoadList.includes('NativeModule internal/crypto/random')) return;
  const { randomInt, randomUUID } = require('node:crypto');
  for (let i = 0; i < UUIDS_AHEAD; i += 1) randomUUID();
  for (let i = 0; i < NUMBERS_AHEAD; i += 1) randomInt(0xffffffff);
}

/** As many as Node draws ahead, or more. */
const UUIDS_AHEAD = 128;
const NUMBERS_AHEAD = 1024;
