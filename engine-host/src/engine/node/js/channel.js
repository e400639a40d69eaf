// Frames to and from the host. A frame is its length in four bytes (the least significant first), a byte that says what
// it is, and fields: each its length in four bytes and so many bytes, or the length 0xffffffff for a field that is not
// there.

const fs = require('node:fs');
const { Socket } = require('node:net');
const { apply } = Reflect;

const COMMANDS = 3;
const REPLIES = 4;
const ABSENT = 0xffffffff;
/** So much of a text is encoded at once, in UTF-16 units. */
const AT_ONCE = 256 * 1024;

/** Whether nobody is told anything. */
let isMute = false;

/** Sends a frame, and returns when it is on its way: a host that is slow to read holds the job. */
function send(kind, ...fields) {
  if (isMute) return;
  const units = fields.reduce((sum, field) => sum + (field?.length ?? 0), 0);
  if (units > AT_ONCE) return sendLarge(kind, fields);
  const parts = fields.map((field) => (field === undefined || Buffer.isBuffer(field) ? field : Buffer.from(field)));
  const length = parts.reduce((sum, part) => sum + 4 + (part?.length ?? 0), 1);
  const head = Buffer.allocUnsafe(5);
  head.writeUInt32LE(length);
  head.write(kind, 4, 'latin1');
  const chunks = [head];
  for (const part of parts) {
    const size = Buffer.allocUnsafe(4);
    size.writeUInt32LE(part === undefined ? ABSENT : part.length);
    chunks.push(size);
    if (part !== undefined) chunks.push(part);
  }
  write(Buffer.concat(chunks));
}

/** Sends a frame piece by piece, as a copy of a large state may be more than there is room for. */
function sendLarge(kind, fields) {
  const lengths = fields.map((field) => (field === undefined ? 0 : Buffer.byteLength(field)));
  const head = Buffer.allocUnsafe(5);
  head.writeUInt32LE(lengths.reduce((sum, length) => sum + 4 + length, 1));
  head.write(kind, 4, 'latin1');
  write(head);
  for (let i = 0; i < fields.length; i += 1) {
    const field = fields[i];
    const size = Buffer.allocUnsafe(4);
    size.writeUInt32LE(field === undefined ? ABSENT : lengths[i]);
    write(size);
    if (Buffer.isBuffer(field)) write(field);
    else if (field !== undefined) writeText(field);
  }
}

function writeText(text) {
  for (let at = 0; at < text.length; ) {
    let end = Math.min(at + AT_ONCE, text.length);
    // Not between the two halves of a character.
    if (end < text.length && isHighSurrogate(text.charCodeAt(end - 1))) end -= 1;
    write(Buffer.from(text.slice(at, end)));
    at = end;
  }
}

const isHighSurrogate = (unit) => unit >= 0xd800 && unit <= 0xdbff;

// Kept, since adaptors may replace what is in the module.
const { writeSync } = fs;

function write(bytes) {
  for (let at = 0; at < bytes.length; ) at += writeSync(REPLIES, bytes, at);
}

/** Calls `onFrame(kind, fields)` for each frame of the host's. Keeps the process alive until the host goes. */
function listen(onFrame) {
  const socket = new Socket({ fd: COMMANDS, readable: true, writable: false });
  const head = Buffer.alloc(4);
  let body;
  let have = 0;
  socket.on('data', (chunk) => {
    for (let at = 0; at < chunk.length; ) {
      const part = body ?? head;
      const copied = chunk.copy(part, have, at);
      at += copied;
      have += copied;
      if (have < part.length) return;
      have = 0;
      if (body === undefined) {
        body = Buffer.allocUnsafe(head.readUInt32LE());
        continue;
      }
      const [kind, fields] = [body.toString('latin1', 0, 1), fieldsOf(body)];
      forget(body);
      body = undefined;
      onFrame(kind, fields);
    }
  });
  socket.on('end', () => process.reallyExit(0));
}

/** Frees a large frame now, and not when V8 finds the time: a job's state is beside it twice, as text and as objects. */
function forget({ buffer, length }) {
  if (length > AT_ONCE) buffer.transfer?.(0);
}

function fieldsOf(frame) {
  const fields = [];
  for (let at = 1; at < frame.length; ) {
    const length = frame.readUInt32LE(at);
    at += 4;
    fields.push(length === ABSENT ? undefined : frame.toString('utf8', at, at + length));
    if (length !== ABSENT) at += length;
  }
  return fields;
}
