// Frames to and from the host. A frame is its length in four bytes (the least significant first), a byte that says what
// it is, and fields: each its length in four bytes and so many bytes, or the length 0xffffffff for a field that is not
// there.

const fs = require('node:fs');
const { Socket } = require('node:net');
const { apply } = Reflect;

const COMMANDS = 3;
const REPLIES = 4;
const ABSENT = 0xffffffff;
/** A frame is put together in so many bytes; one that may be longer is sent piece by piece. */
const ROOM = 64 * 1024;
/** So much of a text is encoded at once, in UTF-16 units, each of which takes three bytes at most. */
const AT_ONCE = Math.floor(ROOM / 3);
/** What comes before the fields. */
const HEAD = 5;

/** Whether nobody is told anything, though all is done that it takes. */
let isMute = false;
/** Made when it is first needed. What is in it is on its way before anything else is put there. */
let room;

// Kept, since adaptors may replace what is in the module.
const { writeSync } = fs;

/**
 * Sends a frame, and returns when it is on its way: a host that is slow to read holds the job, and what was sent is not lost
 * with this process, whatever ends it.
 */
function send(kind, ...fields) {
  room ??= Buffer.allocUnsafeSlow(ROOM);
  let most = HEAD;
  for (let i = 0; i < fields.length; i += 1) most += 4 + 3 * (fields[i]?.length ?? 0);
  if (most > ROOM) return sendLarge(kind, fields);
  let at = HEAD;
  for (let i = 0; i < fields.length; i += 1) {
    const field = fields[i];
    const length = field === undefined ? ABSENT : typeof field === 'string' ? room.write(field, at + 4) : field.copy(room, at + 4);
    room.writeUInt32LE(length, at);
    at += length === ABSENT ? 4 : 4 + length;
  }
  room[4] = kind.charCodeAt(0);
  room.writeUInt32LE(at - 4);
  write(room, at);
}

/** Sends a frame piece by piece, as a copy of a large state may be more than there is room for. */
function sendLarge(kind, fields) {
  const lengths = fields.map((field) => (field === undefined ? 0 : Buffer.byteLength(field)));
  room[4] = kind.charCodeAt(0);
  room.writeUInt32LE(lengths.reduce((sum, length) => sum + 4 + length, 1));
  write(room, HEAD);
  for (let i = 0; i < fields.length; i += 1) {
    const field = fields[i];
    room.writeUInt32LE(field === undefined ? ABSENT : lengths[i]);
    write(room, 4);
    if (Buffer.isBuffer(field)) write(field, field.length);
    else if (field !== undefined) writeText(field);
  }
}

function writeText(text) {
  for (let at = 0; at < text.length; ) {
    let end = Math.min(at + AT_ONCE, text.length);
    // Not between the two halves of a character.
    if (end < text.length && isHighSurrogate(text.charCodeAt(end - 1))) end -= 1;
    write(room, room.write(text.slice(at, end)));
    at = end;
  }
}

const isHighSurrogate = (unit) => unit >= 0xd800 && unit <= 0xdbff;

/** Writes the first bytes of a buffer. */
function write(bytes, length) {
  if (isMute) return void writeSync(REPLIES, bytes, 0, 0);
  for (let at = 0; at < length; ) at += writeSync(REPLIES, bytes, at, length - at);
}

/** A longer frame from the host is freed at once. */
const LARGE = 256 * 1024;

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
  if (length > LARGE) buffer.transfer?.(0);
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
