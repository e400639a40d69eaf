// What Node is started with when there is no snapshot: reads the engine's source from the host, as the first frame, and
// evaluates it. A frame begins with its length, four bytes, the least significant first. What it is to do follows.
const fs = require('node:fs');
const take = (length) => {
  const bytes = Buffer.allocUnsafe(length);
  for (let have = 0; have < length; ) {
    const more = fs.readSync(3, bytes, have, length - have);
    if (more === 0) process.exit(0);
    have += more;
  }
  return bytes;
};
const source = take(take(4).readUInt32LE()).toString();
const { Script } = require('node:vm');
const engine = new Script(source, { filename: 'openfn:engine' }).runInThisContext()(require, (url) => import(url));
