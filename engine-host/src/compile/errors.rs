//! Turns the parser's diagnostics into the one error that users see: where the code first goes wrong, and how.

use oxc::diagnostics::{Diagnostics, OxcDiagnostic};

use super::Fault;

/// The first error in the source's order.
pub(super) fn first(source: &str, diagnostics: &Diagnostics) -> Fault {
    let faults = diagnostics.errors().map(|diagnostic| fault(source, diagnostic));
    faults.min_by_key(|fault| fault.offset).unwrap_or_else(|| Fault::new("Invalid code", 0))
}

fn fault(source: &str, diagnostic: &OxcDiagnostic) -> Fault {
    let message = diagnostic.message.as_ref();
    let offset = offset(diagnostic).min(source.len());
    let missing = message.starts_with("Expected ");
    // A missing token is reported where the code before it ends.
    let token = if missing { skip_trivia(source, offset) } else { offset };
    let unexpected =
        message == "Unexpected token" || message.contains(" but found ") || message.starts_with("Expected a semicolon");
    if message == "Unexpected end of file" || (unexpected || missing) && token >= source.len() {
        Fault { message: "Unexpected end of input".into(), offset: source.len() }
    } else if unexpected {
        Fault { message: "Unexpected token".into(), offset: token }
    } else {
        Fault { message: message.trim_end_matches('.').to_owned(), offset }
    }
}

/// The label that stands for the fault; of a second declaration, the last.
fn offset(diagnostic: &OxcDiagnostic) -> usize {
    let labels = &diagnostic.labels;
    let again = |label: Option<&str>| label.is_some_and(|text| text.contains("already been declared"));
    let label = match labels.iter().find(|label| label.primary()).or_else(|| labels.first()) {
        Some(first) if again(first.label()) => labels.last(),
        first => first,
    };
    label.map_or(0, |label| label.offset() as usize)
}

/// The first place from `offset` on that is neither space nor comment.
fn skip_trivia(source: &str, mut offset: usize) -> usize {
    loop {
        let rest = source.get(offset..).unwrap_or_default();
        let code = rest.trim_start();
        offset += rest.len() - code.len();
        let comment = if code.starts_with("//") {
            code.find('\n')
        } else if code.starts_with("/*") {
            code.find("*/").map(|end| end + 2)
        } else {
            return offset;
        };
        offset += comment.unwrap_or(code.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check_condition, compile};

    #[test]
    fn errors_name_the_offending_token() {
        for (source, expected) in [
            ("fn(s => {\n  const a = ;\n  return s;\n})", "Unexpected token (2:12)"),
            ("fn(s => s", "Unexpected end of input (1:9)"),
            ("fn(s => s\n// more\n", "Unexpected end of input (3:0)"),
            ("a b", "Unexpected token (1:2)"),
            ("a /* x */\t// y", ""),
            ("x = 1 /* c */ y", "Unexpected token (1:14)"),
            ("fn(s => { return s ", "Unexpected end of input (1:19)"),
            ("get(\"a\" \"b\")", "Unexpected token (1:8)"),
            ("(a ? b)", "Unexpected token (1:6)"),
            ("let é = 😀;", "Invalid Character `😀` (1:8)"),
            ("\"😀\"; }", "Unexpected token (1:6)"),
            ("\"x\n\"", "Unterminated string (1:0)"),
            ("let a = 1;\nlet a = 2;", "Identifier `a` has already been declared (2:4)"),
            ("const a;", "Missing initializer in const declaration (1:6)"),
            ("class A { m() { return this.#p; } }", "Private field '#p' must be declared in an enclosing class (1:28)"),
            (
                "fn(s => { await x })",
                "`await` is only allowed within async functions and at the top levels of modules (1:10)",
            ),
            ("x = /(/", "Invalid regular expression: Unterminated capturing group (1:5)"),
            ("return 1", "A 'return' statement can only be used within a function body (1:0)"),
            ("<div/>", "Unexpected JSX expression (1:0)"),
            ("let x: number = 1", "Unexpected token (1:5)"),
            ("with (a) {}", "'with' statements are not allowed (1:0)"),
            ("a: a: x", "Label `a` has already been declared (1:3)"),
            ("export { nothing }", "Export 'nothing' is not defined (1:9)"),
            ("break", "Illegal break statement (1:0)"),
            ("delete x", "Delete of an unqualified identifier in strict mode (1:7)"),
            ("x = `${", "Unexpected end of input (1:7)"),
            ("import x", "Unexpected end of input (1:8)"),
            ("1 = 2", "Cannot assign to this expression (1:0)"),
        ] {
            let got = compile(source, &[]).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(got, expected, "{source}");
        }
    }

    #[test]
    fn conditions_are_what_follows_a_return() {
        for (condition, expected) in [
            ("state.data > 5", Ok(())),
            ("!state.errors?.[upstreamStepId]", Ok(())),
            ("state.data >", Err("Unexpected end of input")),
            ("state.p === \"a\";", Ok(())),
            ("1; // c", Ok(())),
            ("1 // c", Ok(())),
            ("1 /* c */", Ok(())),
            ("", Ok(())),
            ("// c", Ok(())),
            ("{a:1,b:2}", Ok(())),
            ("{}", Ok(())),
            ("function(){}", Ok(())),
            ("state.a; state.b", Ok(())),
            ("new.target === undefined", Ok(())),
            ("new.target }); (function () { return 1", Err("Unexpected new.target expression")),
            ("\n// c\n  /* d */ state.data > 5", Ok(())),
            ("\n/* c */ state.data >", Err("Unexpected end of input")),
            ("1 /* c", Err("Unterminated multiline comment")),
            ("1 } function x() {", Err("Unexpected token")),
            ("1 }); (function () { return 2", Err("Unexpected token")),
            ("@dec class A {}", Err("Decorators are not supported")),
            ("return true", Err("Unexpected token")),
            ("if (a) b", Err("Unexpected token")),
        ] {
            assert_eq!(check_condition(condition), expected.map_err(str::to_owned), "{condition}");
        }
    }
}
