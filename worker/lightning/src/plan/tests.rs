use protocol::run::{JobLogLevel, Sanitize};
use serde_json::json;

use super::*;

const RUN: &str = "a-run";
const NO_COLLECTIONS: Collections = Collections { url: String::new(), version: String::new() };

fn read(plan: Value) -> Plan {
    let collections = Collections { url: "http://c".into(), version: "1.2.3".into() };
    let plan = Json::encode(&plan).unwrap();
    read_with(&plan, None, &collections).unwrap()
}

fn read_with(plan: &Json, state_bytes: Option<u64>, collections: &Collections) -> Result<Plan, InvalidPlan> {
    let around = Surroundings {
        run_id: RUN,
        token: &"token".into(),
        now: Timestamp::from_millisecond(1500).unwrap(),
        defaults: &RunOptions::default(),
        state_bytes,
        collections: Some(collections),
    };
    Plan::read(plan, around)
}

fn edges(plan: Value) -> Vec<(String, String, Condition)> {
    let steps = read(plan).spec.steps.into_iter();
    steps.flat_map(|step| step.next.into_iter().map(move |it| (step.id.clone(), it.target, it.condition))).collect()
}

#[test]
fn a_whole_plan() {
    let plan = read(json!({
        "id": RUN, "name": "flow", "project_id": "p", "dataclip_id": "d", "starting_node_id": "t",
        "triggers": [{"id": "t", "type": "webhook"}],
        "jobs": [{
            "id": "a", "name": "A", "body": "fn(s => s)", "adaptor": "@openfn/language-http@7.2.0",
            "credential_id": "c", "state": {"data": {"x": 1}}, "unknown": [],
        }],
        "edges": [{"id": "e", "source_trigger_id": "t", "target_job_id": "a", "condition": "always", "enabled": true}],
        "options": {"output_dataclips": false},
        "globals": "export const x = 1",
    }));
    assert_eq!(plan.credential_ids(), ["c"]);
    assert_eq!(plan.dataclip_id.as_deref(), Some("d"));
    let fetched = HashMap::from([("c".to_owned(), Json::parse("{\"token\":1}").unwrap())]);
    let spec = plan.complete(Some(Json::parse("{\"data\":2}").unwrap()), &fetched);
    let step = Step {
        id: "a".into(),
        name: Some("A".into()),
        expression: Some("fn(s => s)".into()),
        adaptors: vec!["@openfn/language-http@7.2.0".into()],
        configuration: fetched.get("c").cloned(),
        state: Some(Json::parse("{\"data\":{\"x\":1}}").unwrap()),
        next: Vec::new(),
    };
    let trigger = Step {
        id: "t".into(),
        name: None,
        expression: None,
        adaptors: Vec::new(),
        configuration: None,
        state: None,
        next: vec![Edge { target: "a".into(), condition: Condition::Always }],
    };
    let expected = RunSpec {
        run_id: RUN.into(),
        steps: vec![trigger, step],
        start: Some("t".into()),
        input: Json::parse("{\"data\":2}").unwrap(),
        globals: Some("export const x = 1".into()),
        meta: Json::encode(&json!({"runId": RUN, "startTime": 1500, "projectId": "p"})).unwrap(),
        configuration: None,
        engine: EngineSpec::default(),
        options: RunOptions { output_dataclips: false, ..RunOptions::default() },
    };
    assert_eq!(spec, expected);
}

#[test]
fn null_equals_absent() {
    let keys =
        ["name", "project_id", "dataclip_id", "starting_node_id", "triggers", "jobs", "edges", "options", "globals"];
    let nulls: Map<String, Value> = keys.iter().map(|key| ((*key).into(), Value::Null)).collect();
    for plan in [json!({}), Value::Object(nulls)] {
        let plan = read(plan);
        assert_eq!(plan.credential_ids(), Vec::<String>::new());
        let spec = plan.complete(None, &HashMap::new());
        assert_eq!((spec.steps, spec.start, spec.input), (Vec::new(), None, Json::empty_object()));
    }
    let job = json!({"id": null, "name": null, "body": null, "adaptor": null, "credential_id": null, "credential": null, "state": null});
    let steps = read(json!({"jobs": [job, {}]})).spec.steps;
    for step in steps {
        assert!(Uuid::parse_str(&step.id).is_ok(), "{}", step.id);
        assert_eq!((step.expression, step.configuration, step.state), (None, None, None));
        assert_eq!(step.adaptors, Vec::<String>::new());
    }
}

#[test]
fn unusable_plans_are_errors() {
    for plan in [json!(null), json!([]), json!("plan"), json!({"jobs": 7}), json!({"jobs": [{"body": 1}]})] {
        let plan = Json::encode(&plan).unwrap();
        let error = read_with(&plan, None, &NO_COLLECTIONS).unwrap_err();
        assert!(error.to_string().starts_with("Lightning's plan cannot be read: "), "{error}");
    }
}

#[test]
fn conditions_of_edges() {
    let cases = [
        (json!({}), Condition::Always),
        (json!({"condition": null, "enabled": true}), Condition::Always),
        (json!({"condition": "always"}), Condition::Always),
        (json!({"condition": ""}), Condition::Always),
        (json!({"condition": " always\n"}), Condition::Always),
        (json!({"condition": "never"}), Condition::Never),
        (json!({"condition": " on_job_failure "}), Condition::OnFailure),
        (json!({"condition": "Always"}), Condition::Expression("Always".into())),
        (json!({"condition": "on_job_success"}), Condition::OnSuccess),
        (json!({"condition": "on_upstream_success"}), Condition::OnSuccess),
        (json!({"condition": "on_job_failure"}), Condition::OnFailure),
        (json!({"condition": "on_upstream_fail"}), Condition::OnFailure),
        (json!({"condition": "state.data.n > 3"}), Condition::Expression("state.data.n > 3".into())),
        (json!({"enabled": false}), Condition::Never),
        (json!({"condition": "on_job_success", "enabled": false}), Condition::Never),
    ];
    for (edge, expected) in cases {
        let mut from_job = edge.clone();
        from_job["source_job_id"] = "a".into();
        from_job["target_job_id"] = "b".into();
        let plan = json!({"jobs": [{"id": "a"}, {"id": "b"}], "edges": [from_job]});
        assert_eq!(edges(plan), [("a".into(), "b".into(), expected.clone())], "{edge}");
        let mut from_trigger = edge.clone();
        from_trigger["source_trigger_id"] = "t".into();
        from_trigger["target_job_id"] = "b".into();
        let plan = json!({"triggers": [{"id": "t"}], "jobs": [{"id": "b"}], "edges": [from_trigger]});
        let is_there = edge["enabled"] != json!(false);
        let expected = is_there.then(|| ("t".into(), "b".into(), expected));
        assert_eq!(edges(plan), expected.into_iter().collect::<Vec<_>>(), "{edge}");
    }
}

#[test]
fn edges_keep_their_order_and_unknown_targets() {
    let edge = |source: &str, target: &str| json!({"source_job_id": source, "target_job_id": target});
    let plan = json!({
        "jobs": [{"id": "a"}],
        "edges": [edge("a", "nope"), edge("ghost", "a"), edge("a", "a"), {"target_job_id": "a"}],
    });
    let targets: Vec<_> = edges(plan).into_iter().map(|it| it.1).collect();
    assert_eq!(targets, ["nope", "a"]);
}

#[test]
fn credentials_by_id_and_inline() {
    let plan = read(json!({"triggers": [{"id": "t"}], "jobs": [
        {"id": "a", "credential_id": "one"},
        {"id": "b", "credential": "two"},
        {"id": "c", "credential": {"user": "inline"}},
        {"id": "d", "credential": "one"},
    ]}));
    assert_eq!(plan.credential_ids(), ["one", "two"]);
    let body = |n: u8| Json::parse(format!("{{\"n\":{n}}}")).unwrap();
    let fetched = HashMap::from([("one".to_owned(), body(1)), ("two".to_owned(), body(2))]);
    let steps = plan.complete(None, &fetched).steps;
    let configurations: Vec<_> = steps.into_iter().map(|step| step.configuration).collect();
    let inline = Json::parse("{\"user\":\"inline\"}").unwrap();
    assert_eq!(configurations, [None, Some(body(1)), Some(body(2)), Some(inline), Some(body(1))]);
}

#[test]
fn options_override_the_workers() {
    const MB: u64 = 1024 * 1024;
    let plan = read(json!({"options": {
        "run_timeout_ms": 1500, "run_memory_limit_mb": 100, "payload_limit_mb": 0.5, "log_payload_limit_mb": 2,
        "sanitize": "summarize", "job_log_level": "warn", "output_dataclips": null,
    }}));
    let expected = RunOptions {
        timeout_ms: 1500,
        memory_bytes: 100 * MB,
        state_bytes: 100 * MB,
        payload_bytes: MB / 2,
        log_payload_bytes: 2 * MB,
        job_log_level: JobLogLevel::Warn,
        sanitize: Sanitize::Summarize,
        ..RunOptions::default()
    };
    assert_eq!(plan.spec.options, expected);
    assert_eq!(plan.warnings, Vec::<String>::new());
    let odd = read(json!({"options": {"run_timeout_ms": 0, "sanitize": "bleach"}}));
    assert_eq!(odd.spec.options, RunOptions::default());
    assert_eq!(odd.warnings.len(), 2);
    let none = read(json!({"options": {"payload_limit_mb": 0, "log_payload_limit_mb": 0}}));
    assert_eq!((none.spec.options.payload_bytes, none.spec.options.log_payload_bytes), (0, 0));
    assert_eq!(none.warnings, Vec::<String>::new());
    let negative = read(json!({"options": {"payload_limit_mb": -1, "log_payload_limit_mb": -0.5}}));
    assert_eq!((negative.spec.options, negative.warnings.len()), (RunOptions::default(), 2));
}

#[test]
fn each_word_of_an_option_is_known_and_no_other() {
    let levels = [
        ("debug", JobLogLevel::Debug),
        ("info", JobLogLevel::Info),
        ("warn", JobLogLevel::Warn),
        ("error", JobLogLevel::Error),
        ("none", JobLogLevel::None),
    ];
    for (word, expected) in levels {
        let plan = read(json!({ "options": { "job_log_level": word } }));
        assert_eq!((plan.spec.options.job_log_level, plan.warnings.len()), (expected, 0), "{word}");
    }
    let ways = [
        ("none", Sanitize::None),
        ("remove", Sanitize::Remove),
        ("obfuscate", Sanitize::Obfuscate),
        ("summarize", Sanitize::Summarize),
    ];
    for (word, expected) in ways {
        let plan = read(json!({ "options": { "sanitize": word } }));
        assert_eq!((plan.spec.options.sanitize, plan.warnings.len()), (expected, 0), "{word}");
    }
    for option in ["job_log_level", "sanitize"] {
        for word in ["", "Info", "NONE", "trace"] {
            let plan = read(json!({ "options": { option: word } }));
            assert_eq!(plan.spec.options, RunOptions::default(), "{option} {word}");
            let expected = format!("the run's option {option} is `{word}`, which is unknown: the worker's own holds");
            assert_eq!(plan.warnings, [expected]);
        }
    }
}

#[test]
fn each_limit_holds_alone_and_none_of_them_is_nothing_by_chance() {
    const MB: u64 = 1024 * 1024;
    type Get = fn(&RunOptions) -> u64;
    let limits: [(&str, u64, bool, Get); 5] = [
        ("run_timeout_ms", 1, false, |options| options.timeout_ms),
        ("run_memory_limit_mb", MB, false, |options| options.memory_bytes),
        ("state_limit_mb", MB, false, |options| options.state_bytes),
        ("payload_limit_mb", MB, true, |options| options.payload_bytes),
        ("log_payload_limit_mb", MB, true, |options| options.log_payload_bytes),
    ];
    for (name, unit, may_be_none, get) in limits {
        for (value, expected) in [
            (json!(3), Some(3 * unit)),
            (json!(1.5), Some(unit + unit / 2)),
            (json!(1e300), Some(u64::MAX)),
            (json!(0), may_be_none.then_some(0)),
            (json!(-1), None),
            (json!(1e-9), None),
        ] {
            let plan = read(json!({ "options": { name: value } }));
            let default = RunOptions::default();
            assert_eq!(get(&plan.spec.options), expected.unwrap_or(get(&default)), "{name} {value}");
            assert_eq!(plan.warnings.len(), usize::from(expected.is_none()), "{name} {value}: {:?}", plan.warnings);
            assert!(plan.warnings.iter().all(|warning| warning.contains(name)));
            // The others stay as they are; a state may have as much as the memory.
            for (other, .., get_other) in limits.iter().filter(|it| it.0 != name && it.0 != "state_limit_mb") {
                assert_eq!(get_other(&plan.spec.options), get_other(&default), "{name} {other}");
            }
        }
    }
}

#[test]
fn what_is_empty_is_absent() {
    let plan = json!({"globals": "", "jobs": [
        {"id": "a", "name": "", "body": "", "adaptor": "", "credential_id": "", "credential": ""},
        {"id": "b", "credential": 7}, {"id": "c", "credential": ["x"]}, {"id": "d", "credential_id": "", "credential": "x"},
        {"id": "e", "credential_id": "y", "credential": {"own": 1}},
    ]});
    let plan = read(plan);
    assert_eq!((plan.spec.globals.as_ref(), plan.credential_ids()), (None, vec!["y".to_owned()]));
    let a = &plan.spec.steps[0];
    assert_eq!((&a.name, &a.expression, a.adaptors.len()), (&None, &None, 0));
    let steps = plan.complete(Some(Json::null()), &HashMap::new());
    assert_eq!(steps.input, Json::empty_object());
    assert!(steps.steps.iter().all(|step| step.configuration.is_none()), "what was not fetched is none");
}

#[test]
fn states_may_have_the_runs_memory_unless_somebody_says_otherwise() {
    const MB: u64 = 1024 * 1024;
    let limit = |options: Value, of_worker: Option<u64>| {
        let plan = Json::encode(&json!({ "options": options })).unwrap();
        read_with(&plan, of_worker, &NO_COLLECTIONS).unwrap().spec.options.state_bytes / MB
    };
    for (options, of_worker, expected) in [
        (json!({}), None, 500),
        (json!({"run_memory_limit_mb": 1000}), None, 1000),
        (json!({"run_memory_limit_mb": 20}), None, 50),
        (json!({}), Some(80 * MB), 80),
        (json!({"run_memory_limit_mb": 1000}), Some(80 * MB), 80),
        (json!({"state_limit_mb": 7, "run_memory_limit_mb": 1000}), Some(80 * MB), 7),
        (json!({"state_limit_mb": 0}), None, 500),
    ] {
        assert_eq!(limit(options.clone(), of_worker), expected, "{options} {of_worker:?}");
    }
}

#[test]
fn meta_is_what_the_plan_says_of_the_run() {
    let meta = |plan: Value| read(plan).spec.meta.decode::<Value>().unwrap();
    let (id, time) = (RUN, 1500);
    for (plan, expected) in [
        (json!({}), json!({"runId": id, "startTime": time})),
        (
            json!({"meta": {"work_order_id": "o", "workflow_id": "w", "project_id": "p", "more": 1}, "project_id": "q"}),
            json!({"runId": id, "startTime": time, "workOrderId": "o", "workflowId": "w", "projectId": "p"}),
        ),
        (json!({"meta": {"workflow_id": 7}}), json!({"runId": id, "startTime": time, "workflowId": 7})),
        (json!({"meta": null, "project_id": "q"}), json!({"runId": id, "startTime": time, "projectId": "q"})),
        (json!({"meta": "text"}), json!({"runId": id, "startTime": time})),
    ] {
        assert_eq!(meta(plan.clone()), expected, "{plan}");
    }
}

#[test]
fn collections() {
    let code = "collections.get('x')";
    let plan = read(json!({"project_id": "p", "jobs": [
        {"id": "a", "body": code, "adaptor": "@openfn/language-http@1.0.0"},
        {"id": "b", "body": code, "adaptor": "@openfn/language-collections@local"},
        {"id": "c", "body": "fn(s => s)", "adaptor": "@openfn/language-common@local"},
    ]}));
    let adaptors: Vec<_> = plan.spec.steps.iter().map(|step| step.adaptors.join(" ")).collect();
    assert_eq!(
        adaptors,
        [
            "@openfn/language-http@1.0.0 @openfn/language-collections@1.2.3",
            "@openfn/language-collections@local",
            "@openfn/language-common@local",
        ]
    );
    let configuration: Value = plan.spec.configuration.unwrap().decode().unwrap();
    let expected = json!({"collections_token": "token", "collections_endpoint": "http://c", "project_id": "p"});
    assert_eq!(configuration, expected);
    assert_eq!(read(json!({"jobs": [{"body": "fn(s => s)"}]})).spec.configuration, None);
}

#[test]
fn what_nests_deep_is_passed_on_as_it_is_or_an_error() {
    let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let parse = |text: String| Json::parse(text).unwrap();
    for (plan, is_error) in [
        (deep.clone(), true),
        (format!(r#"{{"jobs":{deep}}}"#), true),
        (format!(r#"{{"jobs":[{{"id":{deep}}}]}}"#), true),
        (format!(r#"{{"options":{{"sanitize":{deep}}}}}"#), true),
        (format!(r#"{{"jobs":[{{"id":"a","state":{deep}}}]}}"#), false),
        (format!(r#"{{"jobs":[{{"id":"a","credential":{{"a":{deep}}}}}]}}"#), false),
        (format!(r#"{{"meta":{{"work_order_id":{deep}}},"unknown":{deep}}}"#), false),
    ] {
        let head = plan[..plan.len().min(40)].to_owned();
        assert_eq!(read_with(&parse(plan), None, &NO_COLLECTIONS).is_err(), is_error, "{head}");
    }
}
