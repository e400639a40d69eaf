// A template: a process that loads the adaptors, tries everything once with nobody's data, and is forked from then on. What
// follows in each child is here, too.

/** Numbers that no process has, by which native code is called: see `native/fork.c`. */
const SERVE = 0x4f460000;
const EXIT = 0x4f470000;

/** So often each adaptor is imported by a job that does nothing, so that V8 knows what a job does. */
const WARM_ROUNDS = 12;
const WARM_CALLS = 5;

/** Seeds a generator of random numbers anew; where the process is no copy of another one, there is nothing to do. */
let sow;

/**
 * Makes this process a template. `take(length)` reads from the host. Tells what the adaptors read that must not be the
 * same in all children, and blocks for as long as the template lives; from then on this is one of the children.
 */
async function template(take) {
  const { setFlagsFromString } = require('node:v8');
  compilePrelude();
  setFlagsFromString('--lazy');
  const next = () => fieldsOf(take(take(4).readUInt32LE()));
  const { adaptors: wantedAdaptors, variables } = JSON.parse(next()[0]);
  const crypto = require('node:crypto');
  watch('', '', variables);
  trapCrypto(crypto);
  for (const adaptor of wantedAdaptors) await load(adaptor);
  for (const later of putOff.splice(0)) {
    try {
      later();
    } catch {
      // Whoever uses it is told.
    }
  }
  await soon();
  const reads = new Set(seen());
  const failed = wantedAdaptors.map(({ specifier }) => adaptors.get(specifier).failed).find((why) => why !== undefined);
  // What an adaptor says of calls that nobody made is not for anybody.
  takeOverConsole();
  isMute = true;
  await warmUp(wantedAdaptors.map(({ specifier }) => specifier));
  isMute = false;
  // What is drawn in jobs is the jobs' own, as long as it is not kept here.
  for (const name of unwatch()) if (/^(Math\.random|crypto\.)/.test(name)) reads.add(name);
  spare = makeRoom();
  await tidyUp();
  send('w', JSON.stringify({ version: process.versions.node, reads: [...reads].sort(), failed }));
  // Not from within the polling of the event loop, of which a child gets another one.
  setImmediate(() => {
    try {
      require('node:os').getPriority(SERVE);
    } catch (error) {
      broken(error);
      process.exit(1);
    }
    begin(JSON.parse(next()[0]));
  });
}

/** Runs a job of each adaptor, and makes the network client do what it does. */
async function warmUp(specifiers) {
  const options = { adaptors: specifiers, removed: [], stateBytes: 1e8, wanted: ['JOB info'], meta: '{}' };
  const run = (code) => runJob(options, code, undefined, '{"data":{"a":[1,"x"]},"configuration":{}}');
  for (let round = 0; round < WARM_ROUNDS; round += 1) {
    for (const specifier of specifiers.length === 0 ? [undefined] : specifiers) {
      const imports = specifier === undefined ? '' : `import * as adaptor from "${specifier}"; export * from "${specifier}";`;
      const operation = specifier === undefined ? '' : '(adaptor.fn ?? ((it) => it))';
      await run(`${imports} export default [
        (state) => { console.log('warm', state.data); return { ...state }; },
        ${operation}((state) => ({ ...state })),
      ];`);
    }
  }
  const server = require('node:http').createServer((request, response) => {
    // What time it is would be kept for a second.
    response.sendDate = false;
    response.setHeader('connection', 'close');
    response.setHeader('content-type', 'application/json');
    request.resume().on('end', () => response.end('{"a":1}'));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}/`;
  const http = specifiers.find((specifier) => specifier.startsWith('@openfn/language-http@'));
  const operations = http && `import { get, post } from "${http}"; export * from "${http}";
    export default [get('${url}'), post('${url}', { body: { b: 1 } })];`;
  for (let call = 0; call < WARM_CALLS; call += 1) {
    await (await fetch(url, { method: 'POST', body: '{}' })).json();
    if (operations !== undefined) await run(operations);
  }
  await new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  // Whatever is left of connections ends before anything is forked.
  await new Promise((resolve) => setTimeout(resolve, 20));
}

/** What is garbage here would be copied by each child that collects it. */
function collectGarbage() {
  const { setFlagsFromString } = require('node:v8');
  setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc');
  setFlagsFromString('--no-expose-gc');
  for (let i = 0; i < 4; i += 1) collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

/** Leaves nothing that each child would have to do: to sweep memory, to load what its beginning takes. */
async function tidyUp() {
  const { report } = process;
  report.directory = report.directory;
  report.filename = report.filename;
  process.chdir(process.cwd());
  new Socket({ readable: true, writable: false }).destroy();
  collectGarbage();
  // To count objects, V8 sweeps all that was left for later.
  require('node:v8').queryObjects(class {}, { format: 'count' });
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** What a child does before anything else: it becomes a process of its own for JavaScript, too. */
function begin({ pid, root, files, report, seed, turns }) {
  const { getPriority } = require('node:os');
  const { setFlagsFromString } = require('node:v8');
  // Node would wait for threads that are not there.
  process.reallyExit = (code) => getPriority(EXIT + ((code ?? 0) & 0xff));
  process.on('beforeExit', () => process.exit());
  defineProperty(process, 'pid', { value: pid, writable: true, enumerable: true, configurable: true });
  process.chdir(files);
  process.env.HOME = files;
  process.env.TMPDIR = files;
  process.report.directory = root;
  process.report.filename = report;
  sow = (random) => {
    // A step of Lehmer's generator, which never comes to 0: that would mean none.
    seed = (seed * 48271) % 0x7fffffff;
    setFlagsFromString(`--random-seed=${seed}`);
    // A context takes the seed when it first draws. It has 31 bits, and more come from where in its sequence one begins.
    for (let i = 0; i <= turns; i += 1) random();
  };
  sow(Math.random);
  // No random bytes are to be forgotten: a template in which any were drawn is not used.
  serve();
}

const ADDS = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0,
  0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11);

/** Does in a child what does not work in one that was forked wrongly, and tells what it has drawn. */
async function prove({ url, exit }) {
  if (exit !== undefined) process.exit(exit);
  const { promisify } = require('node:util');
  const crypto = require('node:crypto');
  const fetched = await (await fetch(url)).text();
  await new Promise((resolve) => setTimeout(resolve, 5));
  const [key] = await Promise.all([
    promisify(crypto.pbkdf2)('a', 'b', 1000, 16, 'sha256'),
    promisify(require('node:zlib').deflate)(Buffer.alloc(100_000)),
    promisify(fs.stat)('.'),
  ]);
  const { instance } = await WebAssembly.instantiate(await WebAssembly.compile(ADDS)).then((it) => ({ instance: it }));
  let kept = [];
  for (let round = 0; round < 20; round += 1) {
    kept = [];
    for (let i = 0; i < 20_000; i += 1) kept.push({ i, text: `t${i}`, list: [i] });
  }
  collectGarbage();
  const room = makeRoom();
  sow?.(room.global.Math.random);
  send('v', JSON.stringify({
    fetched,
    key: key.toString('hex'),
    sum: instance.exports.add(2, 3),
    kept: kept.length,
    drawn: [Math.random(), room.global.Math.random(), crypto.randomUUID(), crypto.randomInt(2 ** 40), crypto.randomBytes(8).toString('hex')].map(String),
    pid: process.pid,
    cwd: process.cwd(),
  }));
}
