// What QuickJS does in another way than the language or V8, put right.

const { getTime: valueOfDate, setTime: setDateTime } = methodsOf(Date.prototype);
const isFiniteNumber = Number.isFinite;
const number = Number;

/** A setter of a part of a date, with at most `count` parameters: what is no number makes the date invalid. */
function strictSetter(prototype, name, count) {
  const method = prototype[name];
  const setters = {
    [name](...given) {
      valueOfDate(this);
      const values = list();
      let isInvalid = false;
      for (let i = 0; i < given.length && i < count; i += 1) {
        push(values, number(given[i]));
        isInvalid ||= !isFiniteNumber(values[i]);
      }
      return isInvalid ? setDateTime(this, NaN) : apply(method, this, values);
    },
  };
  replaceMethod(prototype, name, setters[name], method.length);
}

function replaceMethod(prototype, name, method, length) {
  defineProperty(method, 'length', record({ value: length, configurable: true }));
  defineProperty(prototype, name, record({ value: method, writable: true, enumerable: false, configurable: true }));
}

const setterParameters = record({ Milliseconds: 1, Seconds: 2, Minutes: 3, Hours: 4, Date: 1, Month: 2, FullYear: 3 });
const dateParts = keys(setterParameters);
for (let i = 0; i < dateParts.length; i += 1) {
  strictSetter(Date.prototype, `set${dateParts[i]}`, setterParameters[dateParts[i]]);
  strictSetter(Date.prototype, `setUTC${dateParts[i]}`, setterParameters[dateParts[i]]);
}

/** Functions of the language's own are written on one line elsewhere, and bound ones without a name. */
const { toString: functionToString } = methodsOf(globalThis.Function.prototype);
const oneLine = {
  toString() {
    const shown = functionToString(this);
    if (!endsWith(shown, ') {\n    [native code]\n}')) return shown;
    return `${startsWith(shown, 'function bound ') ? 'function ()' : slice(shown, 0, -22)} { [native code] }`;
  },
};
replaceMethod(globalThis.Function.prototype, 'toString', oneLine.toString, 0);
