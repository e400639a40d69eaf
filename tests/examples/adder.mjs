// A host in JavaScript, with nothing but Node: it adds up numbers. The format is described in docs/protocol.md.
import net from 'node:net';

const { ENGINE_HOST_LINK: address, ENGINE_HOST_TOKEN: token } = process.env;
delete process.env.ENGINE_HOST_TOKEN;

// As much of MessagePack as the link needs.
const head = (type, length) => Buffer.of(type, length >>> 24, length >>> 16, length >>> 8, length);
const pack = (value) => {
  if (value === null) return Buffer.of(0xc0);
  if (Buffer.isBuffer(value)) return Buffer.concat([head(0xc6, value.length), value]);
  if (typeof value === 'string') return Buffer.concat([head(0xdb, Buffer.byteLength(value)), Buffer.from(value)]);
  if (typeof value === 'number') return Buffer.concat([head(0xce, value)]);
  if (Array.isArray(value)) return Buffer.concat([head(0xdd, value.length), ...value.map(pack)]);
  const entries = Object.entries(value);
  return Buffer.concat([head(0xdf, entries.length), ...entries.flat().map(pack)]);
};
const unpack = (bytes) => {
  let at = 0;
  const number = (size) => Number(`0x${bytes.toString('hex', at, (at += size))}`);
  const slice = (size) => bytes.subarray(at, (at += size));
  const list = (size) => Array.from({ length: size }, next);
  const next = () => {
    const type = bytes[at++];
    if (type < 0x80) return type;
    if (type < 0x90) return Object.fromEntries(Array.from({ length: type & 15 }, () => [next(), next()]));
    if (type < 0xa0) return list(type & 15);
    if (type < 0xc0) return slice(type & 31).toString();
    if (type >= 0xc4 && type <= 0xc6) return slice(number(1 << (type - 0xc4)));
    if (type >= 0xcc && type <= 0xcf) return number(1 << (type - 0xcc));
    if (type >= 0xd9 && type <= 0xdb) return slice(number(1 << (type - 0xd9))).toString();
    if (type === 0xdc || type === 0xdd) return list(number(type === 0xdc ? 2 : 4));
    return { 0xc0: null, 0xc2: false, 0xc3: true }[type];
  };
  return next();
};

const socket = net.connect(address);
const send = (message) => {
  const payload = pack(message);
  socket.write(Buffer.concat([head(0, payload.length).subarray(1), payload]));
};
const json = (value) => Buffer.from(JSON.stringify(value));

const answer = ({ Ping, Stop, Custom }) => {
  if (Ping) return { Pong: [process.memoryUsage.rss()] };
  if (Stop) return setImmediate(() => socket.end(() => process.exit(0))) && { Stopping: [] };
  const { add, spin } = JSON.parse(Custom);
  if (spin) for (send({ Notice: { Custom: json('spinning') } }); ; );
  return { Custom: json(add.reduce((sum, number) => sum + number, 0)) };
};

const receive = ({ welcome, refusal, Request: [id, request] = [] }) => {
  if (refusal) throw new Error(JSON.stringify(refusal));
  if (welcome || !request) return;
  try {
    send({ Reply: [id, answer(request)] });
  } catch (error) {
    send({ Refused: [id, ['Failed', error.message, []]] });
  }
};

let rest = Buffer.alloc(0);
socket.on('connect', () => send({ protocol: 4, version: '1.0.0', token, pid: process.pid }));
socket.on('data', (data) => {
  rest = Buffer.concat([rest, data]);
  for (let size; rest.length >= 4 && rest.length >= (size = 4 + rest.readUInt32BE()); rest = rest.subarray(size)) {
    receive(unpack(rest.subarray(4, size)));
  }
});
socket.on('close', () => process.exit(0));
socket.on('error', ({ message }) => console.error(message));
