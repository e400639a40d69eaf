const repr = (value, depth = 0) => {
  if (depth > 5) return '…';
  const inner = (item) => repr(item, depth + 1);
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return `ƒ ${value.name}/${value.length}`;
  if (typeof value !== 'object' || value === null) return Object.is(value, -0) ? '-0' : String(value);
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (kind === 'Date') return `Date ${+value}`;
  if (kind === 'RegExp') return `${value}@${value.lastIndex}`;
  if (kind === 'Error') return `${value.name}${/^own words$|in the embedded engine/.test(value.message) ? `: ${value.message}` : ''}`;
  if (Array.isArray(value)) {
    const items = [];
    for (let i = 0; i < value.length; i += 1) items.push(i in value ? inner(value[i]) : 'hole');
    const others = Object.keys(value).filter((key) => !/^\d+$/.test(key)).map((key) => `${key}: ${inner(value[key])}`);
    return `[${[...items, ...others].join(', ')}]`;
  }
  const items = kind === 'Map' || kind === 'Set' ? [...value].map(inner) : [];
  const own = Object.keys(value).map((key) => `${String(key)}: ${inner(value[key])}`);
  return `${kind}{${[...items, ...own].join(', ')}}`;
};
const show = (make) => {
  try {
    console.log(repr(make()));
  } catch (error) {
    console.log('threw', repr(error));
  }
};
