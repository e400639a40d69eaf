// Stacks as V8 writes them, taken apart.

const errorStack = (error) => attempt(() => error.stack);

/** The part of a stack after the message, which may itself have lines that look like frames. */
function traceOf(error) {
  const stack = errorStack(error);
  if (!isText(stack)) return '';
  const message = attempt(() => error.message);
  if (!isText(message) || message === '') return stack;
  const at = indexOf(stack, message);
  return at < 0 ? stack : slice(stack, at + message.length);
}

function framesOf(error) {
  const frames = list();
  const trace = traceOf(error);
  let start = 0;
  while (start < trace.length) {
    let end = indexOf(trace, '\n', start);
    if (end < 0) end = trace.length;
    const match = matches(/^ {4}at (?:async )?(?:(.*) \()?((?:file:\/\/)?[^()]*?):(\d+):(\d+)\)?$/, slice(trace, start, end));
    if (match !== null) push(frames, frame(match[1], match[2], match[3], match[4]));
    start = end + 1;
  }
  return frames;
}

function frame(name, file, line, column) {
  const where = `${shownFile(file)}:${line}:${column}`;
  return record({
    place: placeOf(file),
    line: file === 'job' ? +line : 0,
    column: +column,
    shown: name === undefined || name === '<anonymous>' ? where : `${name} (${where})`,
  });
}

/** All that is neither a job's, nor the engine's, nor of Node, is an adaptor's, or of a package that it uses. */
function placeOf(file) {
  if (file === 'job' || file === 'globals') return 'job';
  if (startsWith(file, 'openfn:')) return 'engine';
  if (file === '' || file === 'condition' || file === '[eval]' || startsWith(file, 'node:')) return '';
  return startsWith(file, '<') ? '' : 'adaptor';
}

/** A file without the folders above its package. */
function shownFile(file) {
  let from = 0;
  for (let at = indexOf(file, '/node_modules/'); at >= 0; at = indexOf(file, '/node_modules/', from)) from = at + 14;
  return from === 0 ? file : slice(file, from);
}
