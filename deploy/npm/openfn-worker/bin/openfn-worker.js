#!/usr/bin/env node
'use strict';
// Becomes the program of the platform's package, or starts it and ends as it does.

const { spawn } = require('node:child_process');

function program() {
  const name = `openfn-worker-${process.platform}-${process.arch}`;
  try {
    return require.resolve(`${name}/bin/worker`);
  } catch {
    console.error(
      `error: the package ${name} is not installed, which has the program for this platform. There is one for Linux ` +
        'with glibc on x64 and arm64; npm installs it unless optional dependencies are left out (--omit=optional).'
    );
    process.exit(1);
  }
}

function start(path, args) {
  const child = spawn(path, args, { stdio: 'inherit' });
  // Ctrl-C on a terminal reaches the program by itself, and a second signal would end its runs.
  const isTerminal = process.stdin.isTTY;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) {
    process.on(signal, () => isTerminal && signal !== 'SIGTERM' ? undefined : child.kill(signal));
  }
  child.on('error', error => {
    console.error(`error: cannot start ${path}: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

const path = program();
const args = process.argv.slice(2);
try {
  // Node 22.15 and newer: no second process, and signals go where they should. It would warn that this is experimental.
  process.removeAllListeners('warning');
  process.execve(path, [path, ...args], process.env);
} catch {
  start(path, args);
}
