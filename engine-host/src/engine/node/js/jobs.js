// Runs jobs and conditions, each in a context of its own. What happens in a context is the work of the script that jobs
// and conditions share with other engines; here it gets what it needs of Node, and is told what happens outside of it.

const { isNativeError } = require('node:util/types');
const { getHeapStatistics } = require('node:v8');

/** The kinds of lines that the run's log takes, as `source level`. */
let wanted = new Set();
/** The room whose job or condition is under way. */
let current;
/** What was thrown while nothing was under way, for who comes next. */
const late = [];

const NO_CODE = { strings: false, wasm: false };

const MainError = Error;
let prelude;

function compilePrelude() {
  prelude ??= new vm.Script(preludeSource, { filename: 'openfn:prelude' });
}

/** A new context with the prelude in it: its hooks, and what is to be undone when the job is over. */
function makeRoom() {
  compilePrelude();
  const sandbox = vm.constants?.DONT_CONTEXTIFY ?? Object.create(null);
  const context = vm.createContext(sandbox, { codeGeneration: NO_CODE });
  const room = { context, timers: new Map(), settle: undefined, hooks: undefined };
  const global = vm.constants?.DONT_CONTEXTIFY === undefined ? sandbox : context;
  room.global = global;
  room.hooks = prelude.runInContext(context)({
    Buffer,
    isError: (value) => isNativeError(value) || value instanceof MainError,
    log: (source, level, text) => send('l', source, level, text),
    wants: (source, level) => wanted.has(`${source} ${level}`),
    startTimer: (id, repeats, wait, fire) => {
      room.timers.set(id, (repeats ? setInterval : setTimeout)(fire, wait));
    },
    stopTimer: (id) => {
      clearTimeout(room.timers.get(id));
      room.timers.delete(id);
    },
    ended: () => room.settle?.(),
  });
  return room;
}

/** Resolves when the prelude says that the work is over and all that was to come of its promises has come. */
function ending(room) {
  return new Promise((resolve) => {
    let found = false;
    const look = () => {
      // What comes afterwards is for who asks next.
      const result = found ? undefined : room.hooks.outcome();
      if (result === undefined) return;
      found = true;
      resolve(result);
    };
    room.settle = () => setImmediate(look);
    if (late.length === 0) return;
    room.hooks.uncaught(late.shift());
    room.settle();
  });
}

/** Nothing of a job goes on when it is over. */
function leave(room) {
  for (const timer of room.timers.values()) clearTimeout(timer);
  room.timers.clear();
  room.settle = undefined;
}

/** A room made beforehand, since that is when nobody waits. */
let spare;

async function inRoom(work) {
  const room = spare ?? makeRoom();
  spare = undefined;
  sow?.(room.global.Math.random);
  current = room;
  try {
    return await work(room);
  } finally {
    current = undefined;
    leave(room);
  }
}

async function runJob(options, code, globals, state) {
  wanted = new Set(options.wanted);
  await inRoom(async (room) => {
    const { hooks } = room;
    const input = hooks.begun(state, options.removed.join('\n'), options.meta);
    // Its text would be there beside it for as long as the job takes.
    state = undefined;
    for (const [name, source] of [['globals', globals], ['job', code]]) {
      if (source === undefined) continue;
      let module;
      try {
        module = await linked(room, name, source, options.adaptors);
      } catch (error) {
        return send('x', name === 'globals' ? hooks.globalsError(error) : hooks.linkError(error));
      }
      const evaluation = module.evaluate();
      if (name === 'globals') hooks.adopt(evaluation, module.namespace);
      else hooks.begin(evaluation, module.namespace, input);
      const result = await ending(room);
      const isTooLarge = result.state !== undefined && Buffer.byteLength(result.state) > options.stateBytes;
      if (result.thrown !== undefined) {
        return isTooLarge ? send('x', result.thrown, undefined, '1') : send('x', result.thrown, result.state);
      }
      if (isTooLarge) return send('o');
      if (name === 'job') {
        send('r', result.state, result.webhookResponse, `${getHeapStatistics().used_heap_size}`);
      }
    }
  });
}

async function linked(room, name, source, available) {
  const modules = new Map();
  const link = (specifier) => {
    let module = modules.get(specifier);
    if (module === undefined) {
      module = moduleFor(room, specifier, available);
      modules.set(specifier, module);
    }
    return module;
  };
  const loadLater = async (specifier) => {
    const module = link(specifier);
    if (module.status === 'unlinked') await module.link(link);
    if (module.status === 'linked') await module.evaluate();
    return module;
  };
  const options = { context: room.context, identifier: name, importModuleDynamically: loadLater };
  const module = new vm.SourceTextModule(source, options);
  await module.link(link);
  return module;
}

/** What an import gets: the engine's own module, or the adaptor of that name. */
function moduleFor(room, specifier, available) {
  const { context } = room;
  if (specifier === '@openfn/runtime') {
    return new vm.SourceTextModule(runtimeSource, { context, identifier: 'openfn:runtime' });
  }
  const found = find(specifier, available);
  if (found === undefined) throw room.hooks.refused(notFound(specifier));
  const { exports, names, failed } = adaptors.get(found);
  if (failed !== undefined) throw room.hooks.refused(`${found} cannot be loaded: ${failed}`);
  const hasDefault = (typeof exports === 'object' || typeof exports === 'function') && exports !== null && 'default' in exports;
  const evaluate = function () {
    for (const name of names) this.setExport(name, exports[name]);
    this.setExport('default', hasDefault ? exports.default : exports);
  };
  return new vm.SyntheticModule([...names, 'default'], evaluate, { context, identifier: found });
}

/** The adaptor that an import means: one of the job's own, else any that there is. */
function find(specifier, available) {
  const means = (known) => known === specifier || known.slice(0, known.lastIndexOf('@')) === specifier;
  return available.find((known) => means(known) && adaptors.has(known)) ?? [...adaptors.keys()].find(means);
}

const notFound = (specifier) =>
  /^@openfn\/[\w.-]+(@[\w.+-]+)?$/.test(specifier)
    ? `module not found: ${specifier} is not among the adaptors of this workflow`
    : `module blacklisted: ${specifier}`;

async function test(upstreamStepId, expression, state) {
  await inRoom(async (room) => {
    const description = room.hooks.asked(state, upstreamStepId);
    if (description !== undefined) return send('x', description);
    try {
      // A comment may end the expression.
      const source = `(function () { return ${expression}\n })()`;
      const value = new vm.Script(source, { filename: 'condition' }).runInContext(room.context);
      send('c', value ? '1' : '');
    } catch (error) {
      send('x', room.hooks.describe(error));
    }
  });
}

/** Something was thrown that nobody waits for. */
function uncaught(error) {
  if (current?.settle === undefined) {
    late.push(error);
    return;
  }
  current.hooks.uncaught(error);
  current.settle();
}
