//! Errors have the place in the user's source that V8 gives for that source itself.

use engine_host::compile::{self, compile};
use serde::Deserialize;

use super::*;

/// Code whose operation throws, and where: as V8 says it of the code as it is written, the same in Node 20, 22 and 24.
#[derive(Deserialize)]
struct Case {
    source: String,
    line: u32,
    column: u32,
}

#[tokio::test]
async fn errors_are_where_v8_finds_them_in_the_source() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../data/error_places.json")).unwrap();
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", "exports.fn = (f) => f;");
    let mut bench = Bench::start(&[&adaptor]).await;
    let mut wrong = Vec::new();
    for Case { source, line, column } in cases {
        let exports = ["fn".to_owned()];
        let compiled =
            compile(&source, &[compile::Adaptor { specifier: "@openfn/language-a", exports: Some(&exports) }]).unwrap();
        let job = job_with(&compiled.code, &[&adaptor], r#"{"data":{},"text":"text"}"#);
        let Ok(JobEnd::Threw(thrown)) = bench.run(job).await else { panic!("{source} throws") };
        let place = thrown.position.and_then(|(line, column)| compiled.source_position(&source, line, column - 1));
        let place = place.map(|it| (it.line, it.column + 1));
        if place != Some((line, column)) {
            wrong.push(format!(
                "{source}\n  {place:?} is not {line}:{column}; compiled {:?} of\n{}",
                thrown.position, compiled.code
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}
