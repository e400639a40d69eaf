// The console of a job or an adaptor. An engine adds `host.wants(source, level)` and `host.log(source, level, text)`.

/** What the log shows of an object: an error's name and message, and no credentials. */
function shownInLog(value, holder, key) {
  const original = attempt(() => holder[key]);
  const error = isError(value) ? value : isError(original) ? original : undefined;
  if (error !== undefined) {
    return record({ name: attempt(() => text(error.name)), message: attempt(() => text(error.message)) });
  }
  if (isArray(value) || !hasOwn(value, 'configuration')) return value;
  return { ...value, configuration: masked(value.configuration) };
}

function masked(configuration) {
  if (configuration === null || configuration === undefined) return configuration;
  if (typeof configuration !== 'object') return '****';
  const names = keys(configuration);
  const hidden = record({});
  for (let i = 0; i < names.length; i += 1) hidden[names[i]] = '****';
  return hidden;
}

/** The text of a value in a line. That of an error begins with `{ `, so that it is told from an object like it. */
function logText(value) {
  if (typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'bigint') return stringify(value) ?? 'null';
  if (isError(value)) return `{ ${slice(stringify(shownInLog(value)), 1)}`;
  try {
    return (isObject(value) || typeof value === 'bigint' ? carefully(value, shownInLog) : stringify(value)) ?? 'null';
  } catch (error) {
    return stringify(`[cannot be shown: ${attempt(() => reworded(thrownText(error))) ?? 'it throws'}]`);
  }
}

function makeConsole(source) {
  const at = (level) => {
    // What is wanted once is wanted to the end.
    let isWanted = false;
    return (...values) => {
      if (values.length === 0 || (values.length === 1 && values[0] === null)) return;
      isWanted ||= host.wants(source, level);
      if (!isWanted) return;
      let line = '';
      for (let i = 0; i < values.length; i += 1) line += (i === 0 ? '[' : ',') + logText(values[i]);
      host.log(source, level, `${line}]`);
    };
  };
  const info = at('info');
  return {
    debug: at('debug'),
    log: info,
    info,
    print: info,
    success: at('success'),
    always: at('always'),
    warn: at('warn'),
    error: at('error'),
  };
}
