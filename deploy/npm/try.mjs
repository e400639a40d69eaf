// Installs the npm packages in target/packages as users do, from a small registry on the loopback, and runs the demo by
// npx: node deploy/npm/try.mjs
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { serve } from './registry.mjs';

const run = promisify(execFile);
const packages = resolve(import.meta.dirname, '../../target/packages');
const folder = mkdtempSync(join(tmpdir(), 'openfn-npm-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const server = await serve(packages, 0);
if (server.manifests.length < 2) throw new Error(`${packages} has no npm packages: deploy/package npm`);

const registry = `http://127.0.0.1:${server.address().port}`;
const environment = {
  ...process.env,
  HOME: folder,
  npm_config_registry: registry,
  npm_config_cache: join(folder, 'cache'),
  npm_config_update_notifier: 'false',
};
const check = (is, what) => {
  if (!is) throw new Error(`it is not so that ${what}`);
  console.log(`  ${what}`);
};
const npx = (...args) =>
  run('npx', ['--yes', 'openfn-worker', ...args], { cwd: folder, env: environment, timeout: 120_000 });

try {
  const { version } = server.manifests[0];
  const told = await npx('--version');
  check(told.stdout.trim() === `worker ${version}`, `npx openfn-worker --version tells worker ${version}`);
  const demo = await npx('demo', '--engine', 'embedded');
  check(demo.stdout.includes('Run complete with status: success'), 'npx openfn-worker demo runs its workflow to the end');
  const refused = await npx('--capacity', '0').catch(error => error);
  check(refused.code === 2 && refused.stderr.includes('WORKER_CAPACITY'), 'a wrong option exits with 2 through npx');

  await run('npm', ['install', '--no-audit', '--no-fund', 'openfn-worker'], { cwd: folder, env: environment });
  const mock = spawn(join(folder, 'node_modules/.bin/openfn-worker'), ['mock-lightning', '--port', '0'], {
    cwd: folder,
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 60_000,
  });
  mock.stdout.once('data', () => mock.kill('SIGTERM'));
  const [code, signal] = await new Promise(done => mock.once('exit', (...how) => done(how)));
  check(code === 0 && signal === null, 'SIGTERM stops what was started, which then exits with 0');
} finally {
  server.close();
  server.closeAllConnections();
}
