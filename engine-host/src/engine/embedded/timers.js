// Timers. The engine asks how long the next one takes, waits, and fires it; an engine adds `host.now()`, milliseconds
// of a clock that never goes back.

/** A binary heap of the timers that are set, the next one first. Cleared ones stay until they come up. */
const heap = list();
const timers = new Map();
let lastTimer = 0;

const isBefore = (a, b) => a.due < b.due || (a.due === b.due && a.id < b.id);

function schedule(timer) {
  let at = heap.length;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(timer, heap[parent])) break;
    heap[at] = heap[parent];
    at = parent;
  }
  heap[at] = timer;
}

function takeFirst() {
  const first = heap[0];
  const moved = heap[heap.length - 1];
  heap.length -= 1;
  const { length } = heap;
  if (length === 0) return first;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= length) break;
    if (child + 1 < length && isBefore(heap[child + 1], heap[child])) child += 1;
    if (!isBefore(heap[child], moved)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = moved;
  return first;
}

const setter = (repeats) => (callback, delay, ...values) => {
  if (isText(callback)) refuseCode();
  if (typeof callback !== 'function') throw new TypeError('The callback of a timer must be a function');
  const wanted = +delay;
  const wait = wanted >= 1 && wanted <= 0x7fffffff ? wanted : 1;
  lastTimer += 1;
  const timer = record({ id: lastTimer, due: host.now() + wait, wait, repeats, callback, values });
  mapSet(timers, timer.id, timer);
  schedule(timer);
  return timer.id;
};

const clear = (id) => {
  const timer = mapGet(timers, id);
  if (timer === undefined) return;
  timer.callback = undefined;
  mapDelete(timers, id);
};

/** Milliseconds until the next timer is due; undefined without timers. */
function wait() {
  while (heap.length > 0 && heap[0].callback === undefined) takeFirst();
  if (heap.length === 0) return undefined;
  const left = heap[0].due - host.now();
  return left > 0 ? left : 0;
}

/** Fires the next timer. */
function fire() {
  const timer = takeFirst();
  const { callback, values } = timer;
  if (timer.repeats) {
    timer.due = host.now() + timer.wait;
    schedule(timer);
  } else {
    mapDelete(timers, timer.id);
  }
  try {
    apply(callback, undefined, values);
  } catch (error) {
    uncaught(error);
  }
}

const timerGlobals = {
  setTimeout: setter(false),
  setInterval: setter(true),
  clearTimeout: clear,
  clearInterval: clear,
};
