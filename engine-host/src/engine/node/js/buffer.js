// Node's Buffer as jobs see it: what it makes are Node's own, so that adaptors take them for what they are; but it does
// not construct any, and errors are of the job's own classes.

const RealBuffer = host.Buffer;

const byName = (name) => (...values) => {
  try {
    return apply(RealBuffer[name], RealBuffer, values);
  } catch (error) {
    throw new TypeError(attempt(() => text(error.message)));
  }
};

function Buffer() {
  throw new TypeError('Buffer cannot be constructed here: use Buffer.from');
}

const bufferFunctions = ['from', 'alloc', 'concat', 'isBuffer', 'byteLength', 'compare', 'isEncoding'];
for (let i = 0; i < bufferFunctions.length; i += 1) Buffer[bufferFunctions[i]] = byName(bufferFunctions[i]);
Buffer.prototype = RealBuffer.prototype;
