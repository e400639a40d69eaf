//! Which JavaScript engine a host is to start, and what it is to load.

use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::handler::Module;
use crate::handshake::LinkToken;

/// Environment variable of a host: the names of those of its variables that jobs may see as well, separated by commas.
pub const JOB_ENVIRONMENT_VARIABLE: &str = "OPENFN_JOB_ENV";

/// An engine, completely described: two hosts that prepared the same one are interchangeable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EngineSpec {
    /// The one inside of the host. It has the core operations built in, and no other adaptor.
    #[default]
    Embedded,
    /// Node, as a process of the host's own.
    Node(NodeSpec),
    /// No engine for runs: Node with this handler loaded, which works on one job.
    Handler(Box<Module>),
}

/// Node, and what it loads before a run comes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The Node program: an absolute path.
    pub program: PathBuf,
    /// Its version, such as `24.4.0`.
    pub version: String,
    /// The adaptors of the workflow, sorted by name and version, each once.
    pub adaptors: Vec<Adaptor>,
    /// A start-up snapshot with all of `adaptors` in it, made by this `program`.
    pub snapshot: Option<PathBuf>,
    /// Where it may be forked from.
    #[serde(default)]
    pub origin: ForkOrigin,
}

/// A process that the engine may be forked from, if there is one. It makes no difference to what the engine is: any two
/// are equal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ForkOrigin(pub Option<TemplateAddress>);

impl PartialEq for ForkOrigin {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for ForkOrigin {}

impl Hash for ForkOrigin {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

/// Where a template takes requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateAddress {
    /// The host that looks after it.
    pub host: String,
    /// Its socket.
    pub socket: PathBuf,
    /// What has to be in every request.
    pub token: LinkToken,
}

/// An installed adaptor. A step names it `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Adaptor {
    /// The package's name, such as `@openfn/language-http`.
    pub name: String,
    /// Its exact version, or `local`.
    pub version: String,
    /// The package's folder: an absolute path.
    pub folder: PathBuf,
    /// The whole of it in one CommonJS file, where that works.
    pub bundle: Option<PathBuf>,
    /// The names that it exports, where they are known.
    pub exports: Option<Vec<String>>,
    /// What it may do beyond what every adaptor may.
    pub needs: Needs,
}

impl Adaptor {
    /// What steps call it: `name@version`.
    pub fn specifier(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Permissions that most adaptors do without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// Starting processes.
    pub child_processes: bool,
    /// Threads of its own.
    pub workers: bool,
    /// Native code.
    pub addons: bool,
}

impl Needs {
    /// What a package declares as `openfn.needs` in its `package.json`. Who declares nothing that can be read needs
    /// nothing.
    pub fn declared(package_json: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Manifest {
            openfn: OpenFn,
        }
        #[derive(Deserialize)]
        struct OpenFn {
            needs: Needs,
        }
        serde_json::from_slice(package_json).map_or_else(|_| Self::default(), |it: Manifest| it.openfn.needs)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn where_an_engine_comes_from_makes_no_difference() {
        let from =
            |host: &str| TemplateAddress { host: host.to_owned(), socket: "/t".into(), token: LinkToken::new("t") };
        let spec = |origin| NodeSpec {
            program: "/node".into(),
            version: "24.4.0".into(),
            adaptors: Vec::new(),
            snapshot: None,
            origin: ForkOrigin(origin),
        };
        let all = [spec(None), spec(Some(from("h1"))), spec(Some(from("h2")))];
        assert!(all.iter().all(|it| *it == all[0]));
        assert_eq!(HashSet::from(all).len(), 1);
    }

    #[test]
    fn a_package_needs_what_it_declares() {
        let none = Needs::default();
        for (manifest, needs) in [
            (r#"{ "openfn": { "needs": { "workers": true } } }"#, Needs { workers: true, ..none }),
            (
                r#"{ "openfn": { "needs": { "child_processes": true, "addons": true } } }"#,
                Needs { workers: false, child_processes: true, addons: true },
            ),
            (r#"{ "openfn": { "needs": { "workers": "yes" } } }"#, none),
            (r#"{ "openfn": true }"#, none),
            ("{}", none),
            ("", none),
        ] {
            assert_eq!(Needs::declared(manifest.as_bytes()), needs, "{manifest}");
        }
    }
}
