//! TypeScript without its types.

use std::borrow::Cow;
use std::path::Path;

use oxc::allocator::Allocator;
use oxc::codegen::Codegen;
use oxc::diagnostics::OxcDiagnostic;
use oxc::parser::Parser;
use oxc::semantic::SemanticBuilder;
use oxc::span::SourceType;
use oxc::transformer::{TransformOptions, Transformer};

/// Longest source, in bytes.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// JavaScript that does what the TypeScript in `source` says. What is no TypeScript by its name stays as it is. Enums,
/// namespaces and parameter properties become code; types are not checked.
///
/// # Errors
/// What is wrong with the source, and where.
pub fn strip<'a>(file: &Path, source: &'a str) -> Result<Cow<'a, str>, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let kind = match SourceType::from_path(file) {
        Ok(kind) if kind.is_typescript() => kind,
        _ => return Ok(Cow::Borrowed(source)),
    };
    if source.len() > MOST_BYTES {
        return Err(format!("{name} has {} bytes, and at most {MOST_BYTES} are possible", source.len()));
    }
    let allocator = Allocator::default();
    let mut parsed = Parser::new(&allocator, source, kind).parse();
    if let Some(problem) = parsed.diagnostics.first() {
        return Err(told(&name, source, problem));
    }
    let scoping = SemanticBuilder::new().with_enum_eval(true).build(&parsed.program).semantic.into_scoping();
    let transformer = Transformer::new(&allocator, file, &TransformOptions::default());
    let transformed = transformer.build_with_scoping(scoping, &mut parsed.program);
    if let Some(problem) = transformed.diagnostics.first() {
        return Err(told(&name, source, problem));
    }
    Ok(Cow::Owned(Codegen::new().build(&parsed.program).code))
}

fn told(name: &str, source: &str, problem: &OxcDiagnostic) -> String {
    let place = problem.labels.first().and_then(|label| source.get(..label.offset() as usize));
    let line = place.map(|before| format!(":{}", before.matches('\n').count() + 1)).unwrap_or_default();
    format!("{name}{line}: {problem}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(name: &str, source: &str) -> Result<String, String> {
        strip(Path::new(name), source).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn types_go_and_code_stays() {
        let cases = [
            ("const a: number = 1 as number; export { a };", "const a = 1; export { a };"),
            (
                "import type { Job } from './job.js'; import { x, type Y } from './x.js'; x();",
                "import { x } from \"./x.js\"; x();",
            ),
            ("interface A { b: string } export default (job: A): string => job.b!;", "export default (job) => job.b;"),
        ];
        for (source, expected) in cases {
            assert_eq!(stripped("a.ts", source).as_deref(), Ok(expected), "{source}");
        }
        let made =
            stripped("a.mts", "export enum E { A = 1 } export class C { constructor(private x: number) {} }").unwrap();
        assert!(made.contains("E[\"A\"]") && made.contains("this.x = x"), "{made}");
        assert_eq!(stripped("a.js", "const a: number = 1").as_deref(), Ok("const a: number = 1"));
        let wrong = stripped("/handlers/a.ts", "\nconst a: = 1").unwrap_err();
        assert!(wrong.starts_with("a.ts:2: "), "{wrong}");
    }
}
