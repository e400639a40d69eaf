// Timers of a job. An engine adds `host.startTimer(id, repeats, wait, fire)` and `host.stopTimer(id)`.

let lastTimer = 0;

const setter = (repeats) => (callback, delay, ...values) => {
  if (typeof callback === 'string') {
    throw raised('evaluation', 'EvalError', 'Code generation from strings disallowed for this context');
  }
  if (typeof callback !== 'function') throw new TypeError('The callback of a timer must be a function');
  const wanted = +delay;
  const wait = wanted >= 1 && wanted <= 0x7fffffff ? wanted : 1;
  lastTimer += 1;
  const id = lastTimer;
  host.startTimer(id, repeats, wait, () => {
    if (!repeats) host.stopTimer(id);
    try {
      apply(callback, undefined, values);
    } catch (error) {
      uncaught(error);
      host.ended();
    }
  });
  return id;
};

const clear = (id) => {
  if (typeof id === 'number') host.stopTimer(id);
};

const timerGlobals = {
  setTimeout: setter(false),
  setInterval: setter(true),
  clearTimeout: clear,
  clearInterval: clear,
};
