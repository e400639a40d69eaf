// The expressions in JSON paths: `[?(@.age > 5 && @.name != 'x')]`, `[(@.length - 1)]`. A small language of its own:
// values, members, methods of them, and operators. There is no way from it to other code.

const operators = [
  ['||'],
  ['&&'],
  ['===', '!==', '==', '!='],
  ['<=', '>=', '<', '>'],
  ['+', '-'],
  ['*', '/', '%'],
];

const operations = {
  '||': (a, b) => a() || b(),
  '&&': (a, b) => a() && b(),
  '===': (a, b) => a() === b(),
  '!==': (a, b) => a() !== b(),
  '==': (a, b) => a() == b(),
  '!=': (a, b) => a() != b(),
  '<=': (a, b) => a() <= b(),
  '>=': (a, b) => a() >= b(),
  '<': (a, b) => a() < b(),
  '>': (a, b) => a() > b(),
  '+': (a, b) => a() + b(),
  '-': (a, b) => a() - b(),
  '*': (a, b) => a() * b(),
  '/': (a, b) => a() / b(),
  '%': (a, b) => a() % b(),
  '!': (a) => !a(),
  '-x': (a) => -a(),
  '+x': (a) => +a(),
};

const token =
  /\s*(?:(\d+\.?\d*(?:e[+-]?\d+)?)|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(@?[A-Za-z_$][\w$]*|@)|(===|!==|==|!=|<=|>=|&&|\|\||[-+*/%<>!()[\].,]))/sy;

const constants = { true: true, false: false, null: null, undefined: undefined };

/** A function of a node for the expression `source`. */
function parseFilter(source, path) {
  const reader = new FilterReader(source, path);
  const expression = reader.expression(0);
  reader.end();
  return (node) => {
    try {
      return expression(node);
    } catch (error) {
      throw new Error(`jsonPath: ${error.message}: ${source}`);
    }
  };
}

class FilterReader {
  constructor(source, path) {
    this.source = source;
    this.path = path;
    this.at = 0;
  }

  fail() {
    throw new Error(`The expression ${this.source} of the JSON path ${this.path} is not understood here`);
  }

  /** The next token, without taking it; undefined at the end. */
  peek() {
    token.lastIndex = this.at;
    const match = token.exec(this.source);
    if (match === null) {
      if (this.source.slice(this.at).trim() !== '') this.fail();
      return undefined;
    }
    const [whole, number, single, double, name, sign] = match;
    return { number, string: single ?? double, name, sign, end: this.at + whole.length };
  }

  take() {
    const found = this.peek() ?? this.fail();
    this.at = found.end;
    return found;
  }

  /** Takes a sign if it is one of these. */
  accept(...signs) {
    const sign = this.peek()?.sign;
    if (!signs.includes(sign)) return undefined;
    this.take();
    return sign;
  }

  expect(sign) {
    if (this.accept(sign) === undefined) this.fail();
  }

  end() {
    if (this.peek() !== undefined) this.fail();
  }

  expression(level) {
    if (level === operators.length) return this.unary();
    let left = this.expression(level + 1);
    for (let sign; (sign = this.accept(...operators[level])) !== undefined; ) {
      const [a, b] = [left, this.expression(level + 1)];
      const operate = operations[sign];
      left = (node) => operate(() => a(node), () => b(node));
    }
    return left;
  }

  unary() {
    const sign = this.accept('!', '-', '+');
    if (sign === undefined) return this.member(this.primary());
    const operand = this.unary();
    const operate = operations[sign === '!' ? '!' : `${sign}x`];
    return (node) => operate(() => operand(node));
  }

  primary() {
    const pattern = /\s*\/((?:[^/\\[]|\\.|\[(?:[^\]\\]|\\.)*\])+)\/([a-z]*)/sy;
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.source);
    if (found !== null) {
      this.at += found[0].length;
      return () => new RegExp(found[1], found[2]);
    }
    if (this.accept('(') !== undefined) {
      const inner = this.expression(0);
      this.expect(')');
      return inner;
    }
    const { number, string, name } = this.take();
    if (number !== undefined) return () => Number(number);
    if (string !== undefined) return () => string.replace(/\\(.)/gs, '$1');
    if (Object.hasOwn(constants, name ?? '')) return () => constants[name];
    switch (name) {
      case '@':
        return (node) => node.value;
      case '@property':
        return ({ key, parent }) => (Array.isArray(parent?.value) ? Number(key) : key);
      case '@parent':
        return (node) => node.parent?.value;
      case '@parentProperty':
        return (node) => node.parent?.key;
      case '@root':
        return (node) => node.root;
      default:
        return this.fail();
    }
  }

  member(first) {
    let value = first;
    for (;;) {
      const owner = value;
      let key;
      if (this.accept('.') !== undefined) {
        const name = this.take().name ?? this.fail();
        key = () => name;
      } else if (this.accept('[') !== undefined) {
        key = this.expression(0);
        this.expect(']');
      } else {
        return value;
      }
      if (this.accept('(') === undefined) {
        value = (node) => memberOf(owner(node), key(node));
      } else {
        const values = this.callValues();
        value = (node) => {
          const target = owner(node);
          return memberOf(target, key(node)).call(target, ...values.map((item) => item(node)));
        };
      }
    }
  }

  callValues() {
    const values = [];
    if (this.accept(')') !== undefined) return values;
    do values.push(this.expression(0));
    while (this.accept(',') !== undefined);
    this.expect(')');
    return values;
  }
}

/** A member of a value; never the way to code that the value does not have. */
function memberOf(value, key) {
  if (key === 'constructor' || key === '__proto__') throw new Error(`${key} is not allowed`);
  return value[key];
}
