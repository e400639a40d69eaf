// JSON text of values that JSON.stringify would refuse.

/**
 * JSON.stringify, but a cycle becomes "[Circular]" and a BigInt its digits. `show` may replace each object (it gets the
 * object, its holder and its key).
 */
function carefully(root, show) {
  // The objects between the root and the value at hand, as they are and as they are shown.
  const ancestors = new BaseSet();
  const originals = list();
  const holders = list();
  return stringify(root, function (key, value) {
    if (typeof value === 'bigint') return text(value);
    if (typeof value !== 'object' || value === null) return value;
    while (holders.length > 0 && holders[holders.length - 1] !== this) {
      holders.length -= 1;
      setDelete(ancestors, originals[holders.length]);
      originals.length -= 1;
    }
    if (setHas(ancestors, value)) return '[Circular]';
    const shown = show === undefined ? value : show(value, this, key);
    setAdd(ancestors, value);
    push(originals, value);
    push(holders, shown);
    return shown;
  });
}

/** JSON text of any value; undefined for what JSON has no word for. Throws what a getter or `toJSON` throws. */
function toJson(value) {
  try {
    return stringify(value);
  } catch {
    // Either it has a cycle or a BigInt, or the second attempt throws the same again.
    return carefully(value);
  }
}
