// What a handler finds: its arguments, console and timers. Evaluates to a function of the host's functions.

(host, makeClient, addGlobals) => {
  'use strict';

  /** Calls of the store that have no answer yet. */
  const waiting = new Map();
  let lastCall = 0;

  /** Asks for what this JSON text says; gives JSON text. */
  const ask = (call) =>
    new Promise((resolve) => {
      lastCall += 1;
      waiting.set(lastCall, resolve);
      host.ask(lastCall, call);
    });

  const deliver = (id, text) => {
    waiting.get(id)?.(text);
    waiting.delete(id);
  };

  /** An error that says in which way the job failed. */
  globalThis.JobError = class JobError extends Error {
    constructor(message, type, options) {
      super(message, options);
      if (type !== undefined) this.JobError = type;
    }
  };

  const shown = (value) => (typeof value === 'string' ? value : (json(value) ?? String(value)));
  const print = (level) => (...values) => host.print(level, values.map(shown).join(' '));
  globalThis.console = Object.fromEntries(['debug', 'log', 'info', 'warn', 'error'].map((it) => [it, print(it)]));

  const timers = new Map();
  let lastTimer = 0;
  const setter = (repeats) => (callback, delay = 0, ...values) => {
    if (typeof callback !== 'function') throw new TypeError('The callback of a timer must be a function');
    const pause = Math.max(1, Number(delay) || 0);
    lastTimer += 1;
    timers.set(lastTimer, { due: host.now() + pause, pause, repeats, callback, values });
    return lastTimer;
  };
  const clear = (id) => void timers.delete(id);
  Object.assign(globalThis, {
    setTimeout: setter(false),
    setInterval: setter(true),
    clearTimeout: clear,
    clearInterval: clear,
  });

  const next = () => [...timers].reduce((a, b) => (a === undefined || b[1].due < a[1].due ? b : a), undefined);

  /** Milliseconds until the next timer is due; undefined without timers. */
  const wait = () => {
    const timer = next();
    return timer === undefined ? undefined : Math.max(0, timer[1].due - host.now());
  };

  const fire = () => {
    const [id, timer] = next();
    if (timer.repeats) timer.due = host.now() + timer.pause;
    else timers.delete(id);
    try {
      timer.callback(...timer.values);
    } catch (error) {
      fail(error);
    }
  };

  function json(value) {
    try {
      return JSON.stringify(value);
    } catch (error) {
      return undefined;
    }
  }

  /** Something thrown, as it is stored. */
  const describe = (thrown, depth = 0) => {
    if (!(thrown instanceof Error)) return thrown === undefined ? null : (JSON.parse(json(thrown) ?? 'null') ?? String(thrown));
    const { name, message, stack, cause } = thrown;
    const own = Object.fromEntries(Object.entries(thrown).filter(([, value]) => json(value) !== undefined));
    const more = cause === undefined || depth > 4 ? {} : { cause: describe(cause, depth + 1) };
    // QuickJS tells only where; who reads stacks expects what, too.
    const [what, where] = [`${name}: ${message}`, String(stack ?? '')];
    const whole = where.startsWith(what) ? where : `${what}\n${where}`;
    return { ...own, name: String(name), message: String(message), stack: whole.trimEnd(), ...more };
  };

  addGlobals(host);
  const { setTimeout: wake, AbortController } = globalThis;
  const sleep = (milliseconds) => new Promise((resolve) => wake(resolve, milliseconds));
  const { oada, log, settled } = makeClient({ ask, sleep, describe });

  const ended = new AbortController();
  const abort = () => ended.abort(Object.assign(new Error('The run of the job is over'), { name: 'AbortError' }));

  let ending;
  const end = (value) => {
    ending ??= value;
  };
  const fail = (error) => end({ threw: JSON.stringify(describe(error)) });

  const begin = (evaluation, exports, job, jobId) => {
    evaluation
      .then(() => {
        if (typeof exports.default !== 'function') throw new TypeError('The default export must be a function');
        return exports.default(JSON.parse(job), { jobId, log, oada, signal: ended.signal });
      })
      .then(async (value) => {
        const text = JSON.stringify(value);
        await settled();
        end(text === undefined ? {} : { returned: text });
      })
      .catch(async (error) => {
        await settled();
        fail(error);
      });
  };

  const inspect = (evaluation, exports) => {
    evaluation
      .then(() => {
        if (typeof exports.default !== 'function') throw new TypeError('its default export must be a function');
        const { default: handler, ...rest } = exports;
        end({ returned: JSON.stringify(rest) });
      })
      .catch(fail);
  };

  const outcome = () => ending;
  const failed = (error) => fail(error);
  return { abort, begin, deliver, failed, fire, inspect, outcome, wait };
};
