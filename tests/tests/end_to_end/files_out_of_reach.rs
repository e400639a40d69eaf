//! Where the kernel has Landlock, what a run starts uses no files but what its engine needs.

use std::process::Command;

use mock_lightning::RunState;
use serde_json::{Value, json};
use tests::binaries;
use tests::lightning::{self, LightningOptions, chain, end, queue};
use tests::node::{write_local, write_package};
use tests::worker::{UNCONFINED, Worker, local_adaptors};

/// An adaptor that may start processes, which Node's own permissions do not reach.
const SHELL: &str = "const { spawnSync } = require('node:child_process');
    const said = (program, path) => String(spawnSync(program, [path]).stdout);
    exports.look = (path) => () => ({ data: { read: said('cat', path), written: spawnSync('touch', [`${path}.new`]).status === 0 } });";

fn kernel_has_landlock() -> bool {
    let output = Command::new(binaries::worker()).args(["doctor", "--secret", "s"]).output();
    let told = String::from_utf8(output.expect("the worker was just built").stdout).expect("it prints text");
    !told.contains("the kernel does not have it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runs_processes_read_and_write_nothing_of_others() {
    let (folder, root) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "private").expect("the folder is ours");
    let manifest = json!({
        "name": "@openfn/language-shell", "version": "1.0.0", "main": "index.js",
        "openfn": { "needs": { "child_processes": true } },
    });
    write_local(root.path(), "shell", &manifest, SHELL);

    let usual = local_adaptors("node", root.path());
    let usual: Vec<&str> = usual.iter().map(String::as_str).collect();
    let mut plan = chain(&[("a", &format!("look('{}')", secret.display()))]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-shell@local".into();
    let reachable = json!({ "data": { "read": "private", "written": true } });
    let restricted =
        if kernel_has_landlock() { json!({ "data": { "read": "", "written": false } }) } else { reachable.clone() };
    for (more, expected) in [(&[][..], restricted), (&UNCONFINED[..], reachable)] {
        let lightning = lightning::start(LightningOptions::default()).await;
        let worker = Worker::start(&lightning, &[&usual[..], more].concat()).await;
        let record = end(&lightning, &worker, &queue(&lightning, plan.clone())).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
        assert_eq!(record.final_state.unwrap_or(Value::Null), expected, "{more:?}");
        worker.stop().await;
    }
}

/// Reads files by a program, which Node's own permissions do not reach, and takes its greeting from a package.
const LINKED: &str = "const { spawnSync } = require('node:child_process');
    exports.greet = () => (state) => ({ data: { ...state.data, greeting: require('@openfn/b').greet() } });
    exports.look = (...files) => (state) =>
        ({ data: { ...state.data, read: files.map((file) => spawnSync('cat', [file]).status === 0) } });";

/// Packages of a workspace that are linked from outside of its root, as folders: what they are, and the links of each.
type Layout = &'static [(&'static str, &'static [(&'static str, &'static str)])];

/// In a folder beside the workspace, linked both ways.
const BESIDE: Layout = &[
    ("root/packages/a", &[("@openfn/b", "beside/b")]),
    ("beside/b", &[("@openfn/c", "beside/c")]),
    ("beside/c", &[("@openfn/a", "root/packages/a")]),
];

/// In a store as pnpm has it, for a workspace or for all of them: what a package uses is linked beside it.
const STORE: Layout = &[
    ("root/packages/a", &[("@openfn/b", "store/b@1/node_modules/@openfn/b")]),
    ("store/b@1/node_modules/@openfn/b", &[("../@openfn/c", "store/c@1/node_modules/@openfn/c")]),
    ("store/c@1/node_modules/@openfn/c", &[("../@openfn/b", "store/b@1/node_modules/@openfn/b")]),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_links_lead_to_outside_of_the_workspace_is_readable_and_nothing_beside_it() {
    for layout in [BESIDE, STORE] {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path().canonicalize().expect("it is there");
        for (package, links) in layout {
            let name = package.rsplit('/').next().expect("a path has a last part");
            let manifest = json!({
                "name": format!("@openfn/{name}"), "version": "1.0.0", "main": "index.js",
                "dependencies": { "@openfn/a": "1", "@openfn/b": "1", "@openfn/c": "1" },
                "openfn": { "needs": { "child_processes": true } },
            });
            let source = match name {
                "a" => LINKED,
                "b" => "exports.greet = () => require('@openfn/c').greeting;",
                _ => "exports.greeting = 'hello';",
            };
            write_package(&top.join(package), &manifest, source);
            for (link, target) in *links {
                let own = top.join(package);
                let (holder, link) = match link.strip_prefix("../") {
                    Some(link) => (own.ancestors().nth(2).expect("it lies deep").to_owned(), link),
                    None => (own.join("node_modules"), *link),
                };
                let link = holder.join(link);
                std::fs::create_dir_all(link.parent().expect("it has one")).expect("the folder is ours");
                std::os::unix::fs::symlink(top.join(target), link).expect("the folder is ours");
            }
        }
        let (last, _) = layout[2];
        let beside = top.join(last).ancestors().nth(2).expect("it lies deep").join("secret");
        std::fs::write(&beside, "private").expect("the folder is ours");
        let elsewhere = top.join(last).ancestors().nth(1).expect("it lies deep").join("other");
        write_package(&elsewhere, &json!({ "name": "other" }), "");

        let files = [top.join(last).join("index.js"), beside, elsewhere.join("index.js")];
        let files: Vec<String> = files.iter().map(|path| format!("'{}'", path.display())).collect();
        let mut plan = chain(&[("a", &format!("greet(); look({})", files.join(", ")))]);
        plan["jobs"][0]["adaptor"] = "@openfn/language-a@local".into();
        let lightning = lightning::start(LightningOptions::default()).await;
        let (repo, root) = (top.join("repo").display().to_string(), top.join("root").display().to_string());
        let options = ["--engine", "node", "--repo-dir", &repo, "--monorepo-dir", &root, "--offline"];
        let worker = Worker::start(&lightning, &[&options[..], &["--allow-unconfined-adaptors"]].concat()).await;
        let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
        let reached = !kernel_has_landlock();
        let expected = json!({ "data": { "greeting": "hello", "read": [true, reached, reached] } });
        assert_eq!(record.final_state, Some(expected), "{layout:?}: {record:?}\n{}", worker.output());
        worker.stop().await;
    }
}
