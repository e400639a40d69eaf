// What was thrown, told to the engine. An engine adds `framesOf(error)`: the frames of its stack, innermost first, each
// with `place` ("job", "adaptor", "engine" or "" for the language's own), `line`, `column` and `shown`, its text.

/** The origin of errors that the engine itself raised. Only this decides it, not what an error says of itself. */
const origins = new WeakMap();

/** An error of the engine's. */
function raised(origin, name, message) {
  const error = new BaseError(message);
  defineProperty(error, 'name', record({ value: name, writable: true, configurable: true }));
  weakSet(origins, error, origin);
  return error;
}

// What engines call differently, in V8's words.
const rewordings = [
  [/^cannot read property 'Symbol\.iterator' of (undefined|null)$/, (m) => `${m[1]} is not iterable (cannot read property Symbol(Symbol.iterator))`],
  [/^cannot read property '(.*)' of (undefined|null)$/s, (m) => `Cannot read properties of ${m[2]} (reading '${m[1]}')`],
  [/^cannot set property '(.*)' of (undefined|null)$/s, (m) => `Cannot set properties of ${m[2]} (setting '${m[1]}')`],
  [/^(.*) is not initialized$/s, (m) => `Cannot access '${m[1]}' before initialization`],
  [/^invalid array length$/, () => 'Invalid array length'],
  [/^(?:invalid string length|string too long)$/, () => 'Invalid string length'],
  [/^cannot convert symbol to (string|number)$/, (m) => `Cannot convert a Symbol value to a ${m[1]}`],
  [/^BigInt are forbidden in JSON\.stringify$/, () => 'Do not know how to serialize a BigInt'],
  [/^bigint argument with unary \+$/, () => 'Cannot convert a BigInt value to a number'],
  [/^toPrimitive$/, () => 'Cannot convert object to primitive value'],
  [/^Date value is NaN$/, () => 'Invalid time value'],
  [/^invalid array index: (.*)$/, (m) => `Invalid index : ${m[1]}`],
  [/^not a object$/, () => 'CreateListFromArrayLike called on non-object'],
  [/^empty array$/, () => 'Reduce of empty array with no initial value'],
  [/^(?:expecting hex digit|expecting %|malformed UTF-8|expecting surrogate pair|invalid character)$/, () => 'URI malformed'],
];

function reworded(message) {
  for (let i = 0; i < rewordings.length; i += 1) {
    const match = matches(rewordings[i][0], message);
    if (match !== null) return rewordings[i][1](match);
  }
  return message;
}

const isText = (value) => typeof value === 'string';

/** A thrown value as text. */
function thrownText(value) {
  if (isText(value)) return value;
  if (isObject(value)) {
    const message = attempt(() => value.message);
    if (isText(message) && message !== '') return message;
    return attempt(() => toJson(value)) ?? 'an object that cannot be shown';
  }
  return text(value);
}

/** An adaptor's error: its message and its own enumerable properties. */
function details(error, message) {
  return attempt(() => toJson({ message, ...error })) ?? stringify(record({ message }));
}

/** What begins the messages of errors, while the module is under way whose exports are globals. */
let messagePrefix = '';

/** Describes a thrown value as JSON text, for the engine. Never throws. */
function describe(value, operation, fallback) {
  const own = isObject(value) ? weakGet(origins, value) : undefined;
  const genuine = isError(value);
  const name = genuine ? attempt(() => value.name) : '';
  let message = thrownText(value);
  if (genuine && isText(attempt(() => value.message))) message = reworded(attempt(() => text(value.message)) ?? '');

  message = messagePrefix + message;

  let origin = own ?? fallback;
  let position;
  let stack = isText(name) && name !== '' ? `${name}: ${message}` : message;
  const frames = genuine ? (attempt(() => framesOf(value)) ?? list()) : list();
  for (let i = 0; i < frames.length; i += 1) {
    const frame = frames[i];
    if (frame.place === 'engine') continue;
    stack += `\n    at ${frame.shown}`;
    if (frame.place === '') continue;
    origin ??= frame.place;
    if (frame.place === 'job' && frame.line > 0) position ??= setPrototypeOf([frame.line, frame.column], null);
  }
  origin ??= 'job';
  return stringify(record({
    origin,
    name: isText(name) ? wellFormed(name) : '',
    message: wellFormed(message),
    position,
    details: origin === 'adaptor' ? details(value, message) : undefined,
    operation,
    stack: genuine ? wellFormed(stack) : undefined,
  }));
}
